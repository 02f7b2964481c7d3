# Builds every row of shaders/kernels.def into one C file, and the table of them: target gyre_kernels.
#
# A row: C preprocessor -> GLSL -> glslang -> SPIR-V, without and with hardware int8 dot products, and the OpenCL C
# text; shaders/embed.c (a host tool) puts the three into a struct gyre_kernel_source. A source NAME.cl.k exists for
# OpenCL only, NAME.vk.k for Vulkan only. The latter need a newer glslang than Debian 12's: their SPIR-V lies in
# shaders/spirv, `ninja matrix_spirv` writes it by scripts/lab from the GLSL made here, test lab13.spirv compares.

set(kernel_dir ${CMAKE_CURRENT_LIST_DIR})
set(kernel_out ${CMAKE_BINARY_DIR}/kernels)
file(MAKE_DIRECTORY ${kernel_out})

add_executable(gyre_embed ${kernel_dir}/embed.c)
if(GYRE_SANITIZE) # it lives for one file and frees nothing
  target_compile_options(gyre_embed PRIVATE -fno-sanitize=all)
  target_link_options(gyre_embed PRIVATE -fno-sanitize=all)
endif()
find_program(GLSLANG_VALIDATOR glslangValidator)
find_program(SPIRV_VAL spirv-val)
if(NOT GLSLANG_VALIDATOR AND NOT GYRE_VULKAN STREQUAL OFF)
  message(FATAL_ERROR "glslangValidator not found: install glslang-tools, or configure with -DGYRE_VULKAN=OFF")
endif()

set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${kernel_dir}/kernels.def)
file(STRINGS ${kernel_dir}/kernels.def kernel_rows REGEX "^KERNEL\\(")

# One row. GLSL is written by `cpp -D`, so that a kernel's own #if see the row's defines; the depfile names its includes.
function(gyre_kernel name source defines params writes bindings op form needs)
  separate_arguments(define_list UNIX_COMMAND "${defines}")
  string(REGEX REPLACE "^, *" "" needs "${needs}")
  set(base ${kernel_out}/${name})
  set(file ${kernel_dir}/${source}.k)
  set(cpp ${CMAKE_C_COMPILER} -E -P -undef -nostdinc -x c -DGYRE_GLSL ${define_list}
    -I${kernel_dir} -include ${kernel_dir}/dialect.h -include ${kernel_dir}/params.h ${file})
  set(commands COMMAND ${cpp} -MD -MF ${base}.d -MT ${base}.c -o ${base}.comp)
  set(spirv - -)
  set(inputs)
  set(depfile DEPFILE ${base}.d)
  if(source MATCHES "\\.vk$") # GLSL by itself, so that it can be had before there is SPIR-V of it
    add_custom_command(OUTPUT ${base}.comp COMMAND ${cpp} -MD -MF ${base}.d -MT ${base}.comp -o ${base}.comp
      DEPENDS ${file} ${kernel_dir}/dialect.h ${kernel_dir}/params.h ${depfile} COMMENT "GLSL of ${name}" VERBATIM)
    set(commands COMMAND ${CMAKE_COMMAND} -DNAME=${name} -DGLSL=${base}.comp -DDIGESTS=${kernel_dir}/spirv/glsl.sha256
      -P ${kernel_dir}/dated.cmake)
    set(depfile)
    set(spirv ${kernel_dir}/spirv/${name}.spv -)
    set(inputs ${base}.comp ${kernel_dir}/spirv/${name}.spv ${kernel_dir}/spirv/glsl.sha256 ${kernel_dir}/dated.cmake)
  elseif(GLSLANG_VALIDATOR AND NOT source MATCHES "\\.cl$")
    list(APPEND commands COMMAND ${cpp} -DGYRE_INT_DOT -o ${base}.dot.comp)
    set(spirv ${base}.spv ${base}.dot.spv)
    foreach(form "" .dot)
      list(APPEND commands
        COMMAND ${GLSLANG_VALIDATOR} --quiet -V --target-env vulkan1.1 -S comp -o ${base}${form}.spv ${base}${form}.comp)
      if(SPIRV_VAL)
        list(APPEND commands COMMAND ${SPIRV_VAL} --target-env vulkan1.1 ${base}${form}.spv)
      endif()
    endforeach()
  endif()
  add_custom_command(OUTPUT ${base}.c ${commands}
    COMMAND gyre_embed kernel ${base}.c ${name} ${op} ${form} "${needs}" ${params} ${writes} ${bindings} "${defines}" ${base}.comp ${spirv}
      ${kernel_dir} ${file}
    DEPENDS gyre_embed ${file} ${inputs} ${kernel_dir}/dialect.h ${kernel_dir}/params.h
    ${depfile} COMMENT "Kernel ${name}" VERBATIM)
endfunction()

set(kernel_names)
set(kernel_made) # whose SPIR-V is committed
foreach(row ${kernel_rows})
  if(NOT row MATCHES "^KERNEL\\(([a-z0-9_]+), *([a-z0-9_.]+), *\"([^\"]*)\", *([a-z0-9_]+), *([0-9]+), *([0-9]+), *([a-z0-9_]+), *([A-Z0-9|]+)(, *[A-Z0-9_|]+)?\\)")
    message(FATAL_ERROR "shaders/kernels.def: not a row: ${row}")
  endif()
  if(NOT EXISTS ${kernel_dir}/${CMAKE_MATCH_2}.k)
    message(FATAL_ERROR "shaders/kernels.def: ${CMAKE_MATCH_1} has no source shaders/${CMAKE_MATCH_2}.k")
  endif()
  list(APPEND kernel_names ${CMAKE_MATCH_1})
  gyre_kernel(${CMAKE_MATCH_1} ${CMAKE_MATCH_2} "${CMAKE_MATCH_3}" ${CMAKE_MATCH_4} ${CMAKE_MATCH_5} ${CMAKE_MATCH_6}
    ${CMAKE_MATCH_7} ${CMAKE_MATCH_8} "${CMAKE_MATCH_9}")
  if(row MATCHES "^KERNEL\\(([a-z0-9_]+), *[a-z0-9_]+\\.vk,")
    list(APPEND kernel_made ${CMAKE_MATCH_1})
  endif()
endforeach()

list(TRANSFORM kernel_names PREPEND ${kernel_out}/ OUTPUT_VARIABLE kernel_c)
list(TRANSFORM kernel_c APPEND .c)
add_custom_command(OUTPUT ${kernel_out}/table.c
  COMMAND gyre_embed table ${kernel_out}/table.c ${kernel_names}
  DEPENDS gyre_embed ${kernel_dir}/kernels.def COMMENT "Kernel table" VERBATIM)
list(TRANSFORM kernel_made REPLACE "(.+)" "${kernel_out}/\\1.comp" OUTPUT_VARIABLE kernel_glsl)
add_custom_target(gyre_kernel_glsl DEPENDS ${kernel_glsl})
add_library(gyre_kernels STATIC ${kernel_c} ${kernel_out}/table.c)
target_compile_options(gyre_kernels PRIVATE -Wno-overlength-strings)
