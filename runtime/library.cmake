# The two libraries that others link, made of the layers, and what is installed: libgyre (run models) and libgyre-quantize
# (make them; the only one that needs BLAS, LAPACK and YAML), shared and static, headers, pkg-config files, a CMake package.
#
# A shared library exports what the public headers mark GYRE_API; all else is hidden. A static one is a single object in
# which everything else is local, so it cannot clash with what a program links beside it. libgyre-quantize has its own
# copy of the layers below it: no object passes between the two, and neither opens a back door for the other.
include(GNUInstallDirs)
# From a pkg-config file to the prefix: what is installed can be moved, and installed elsewhere than configured.
file(RELATIVE_PATH to_prefix ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
string(REGEX REPLACE "/$" "" to_prefix ${to_prefix})

file(STRINGS runtime/include/gyre/gyre_base.h line REGEX "^#define GYRE_API_MAJOR")
string(REGEX MATCH "[0-9]+" api_major "${line}")
file(STRINGS runtime/include/gyre/gyre_base.h line REGEX "^#define GYRE_VERSION")
if(NOT line MATCHES "\"${PROJECT_VERSION}\"")
  message(FATAL_ERROR "runtime/include/gyre/gyre_base.h says another version than CMakeLists.txt: ${line}")
endif()

# The functions that a public header declares, one a line.
function(gyre_public_names out)
  set(names)
  foreach(header ${ARGN})
    file(READ ${CMAKE_SOURCE_DIR}/runtime/include/gyre/${header}.h text)
    string(REGEX MATCHALL "\nGYRE_API [^(;]*\\(" found "${text}")
    foreach(f ${found})
      string(REGEX REPLACE "^.*[ *\n](gyre_[a-z0-9_]+)\\($" "\\1\n" f "${f}")
      string(APPEND names "${f}")
    endforeach()
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS runtime/include/gyre/${header}.h)
  endforeach()
  file(GENERATE OUTPUT ${CMAKE_BINARY_DIR}/${out}.names CONTENT "${names}")
endfunction()
gyre_public_names(gyre gyre_base gyre gyre_chat gyre_eval gyre_grammar gyre_schedule gyre_tools)
gyre_public_names(gyre-quantize gyre_quantize)

# name: of the library. LAYERS: whose objects it exports from. BELOW: layers it only contains. LINK: what it needs.
function(gyre_library name)
  cmake_parse_arguments(L "" "" "LAYERS;BELOW;LINK" ${ARGN})
  string(REPLACE "-" "_" target ${name}_shared)
  set(objects)
  foreach(layer ${L_LAYERS})
    list(APPEND objects $<TARGET_OBJECTS:${layer}>)
  endforeach()
  set(all ${objects})
  foreach(layer ${L_BELOW})
    list(APPEND all $<TARGET_OBJECTS:${layer}>)
  endforeach()
  add_library(${target} SHARED ${objects})
  set_target_properties(${target} PROPERTIES OUTPUT_NAME ${name} EXPORT_NAME ${name} LINKER_LANGUAGE C
    VERSION ${api_major}.${PROJECT_VERSION} SOVERSION ${api_major})
  target_link_libraries(${target} PRIVATE ${L_BELOW} ${L_LINK})
  target_link_options(${target} PRIVATE LINKER:--exclude-libs,ALL LINKER:--no-undefined LINKER:--as-needed)
  target_include_directories(${target} INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  if(GYRE_SANITIZE) # the program brings the sanitizer
    target_link_options(${target} PRIVATE LINKER:-z,undefs)
  endif()

  set(archive ${CMAKE_BINARY_DIR}/lib${name}.a)
  add_custom_command(OUTPUT ${archive}
    COMMAND ${CMAKE_LINKER} -r -o ${name}.o ${all}
    COMMAND ${CMAKE_OBJCOPY} --keep-global-symbols=${name}.names ${name}.o
    COMMAND ${CMAKE_COMMAND} -E rm -f ${archive}
    COMMAND ${CMAKE_AR} qcs ${archive} ${name}.o
    DEPENDS ${L_LAYERS} ${L_BELOW} ${all} ${CMAKE_BINARY_DIR}/${name}.names
    WORKING_DIRECTORY ${CMAKE_BINARY_DIR} COMMENT "Static library lib${name}.a" COMMAND_EXPAND_LISTS VERBATIM)
  add_custom_target(${target}_archive ALL DEPENDS ${archive})

  install(TARGETS ${target} EXPORT gyreTargets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
  install(FILES ${archive} DESTINATION ${CMAKE_INSTALL_LIBDIR})
  configure_file(runtime/${name}.pc.in ${name}.pc @ONLY)
  install(FILES ${CMAKE_BINARY_DIR}/${name}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endfunction()

set(below gyre_util gyre_core gyre_kernels gyre_backends gyre_graph gyre_model)
gyre_library(gyre LAYERS ${below} gyre_runtime
  LINK PkgConfig::JANSSON PkgConfig::PCRE2 PkgConfig::UTF8PROC PkgConfig::NETTLE OpenMP::OpenMP_C Threads::Threads m
    ${CMAKE_DL_LIBS})
gyre_library(gyre-quantize LAYERS gyre_quantizer BELOW ${below} gyre_fast
  LINK PkgConfig::JANSSON PkgConfig::PCRE2 PkgConfig::UTF8PROC PkgConfig::NETTLE PkgConfig::OPENBLAS PkgConfig::LAPACKE
    PkgConfig::YAML OpenMP::OpenMP_C Threads::Threads m ${CMAKE_DL_LIBS})

file(GLOB headers CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/runtime/include/gyre/*.h)
install(FILES ${headers} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/gyre)
install(TARGETS gyre RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
set(package ${CMAKE_INSTALL_LIBDIR}/cmake/gyre)
install(EXPORT gyreTargets NAMESPACE gyre:: DESTINATION ${package})
include(CMakePackageConfigHelpers)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/gyreConfigVersion.cmake COMPATIBILITY SameMinorVersion)
file(WRITE ${CMAKE_BINARY_DIR}/gyreConfig.cmake
  "# find_package(gyre) gives gyre::gyre and gyre::gyre-quantize.\ninclude(\${CMAKE_CURRENT_LIST_DIR}/gyreTargets.cmake)\n")
install(FILES ${CMAKE_BINARY_DIR}/gyreConfig.cmake ${CMAKE_BINARY_DIR}/gyreConfigVersion.cmake DESTINATION ${package})
