# Labs: tools that find what a passing test cannot see. Each lab first shows that it can see a fault made on purpose.
function(gyre_oclgrind name expect)
  add_test(NAME labs.oclgrind.${name} COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/labs/oclgrind.sh ${expect} ${ARGN}
    WORKING_DIRECTORY ${CMAKE_BINARY_DIR})
  set_tests_properties(labs.oclgrind.${name} PROPERTIES LABELS labs TIMEOUT 900 SKIP_RETURN_CODE 77)
endfunction()

if(have_OPENCL AND NOT GYRE_SANITIZE) # the simulator is preloaded, which sanitizers do not like
  add_executable(lab_faulty labs/faulty.c)
  target_link_libraries(lab_faulty PRIVATE gyre_backends)
  gyre_oclgrind(sees_races "data race" $<TARGET_FILE:lab_faulty> race)
  gyre_oclgrind(sees_bounds "Invalid write" $<TARGET_FILE:lab_faulty> bounds)
  gyre_oclgrind(sees_uninitialised "Uninitialized value" $<TARGET_FILE:lab_faulty> uninitialised)
  gyre_oclgrind(sees_wrong_calls "CL_INVALID_VALUE" $<TARGET_FILE:lab_faulty> api)
  gyre_oclgrind(sees_nothing clean $<TARGET_FILE:lab_faulty> none)
  gyre_oclgrind(ops clean $<TARGET_FILE:test_ops_opencl>) # every kernel, through every fifth of its op's cases
  set_tests_properties(labs.oclgrind.ops PROPERTIES ENVIRONMENT GYRE_TEST_SHARE=5)
endif()

# Intel's chips without one: ocloc, the compiler of Intel's OpenCL driver as a program.
add_executable(lab_kernel_texts labs/kernel_texts.c)
target_link_libraries(lab_kernel_texts PRIVATE gyre_kernels)
add_test(NAME labs.ocloc COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/labs/ocloc.sh $<TARGET_FILE:lab_kernel_texts>)
set_tests_properties(labs.ocloc PROPERTIES LABELS labs TIMEOUT 900 SKIP_RETURN_CODE 77)

# AMD's chips without one: RADV compiles for them. `ninja radv_stats` writes the table anew.
if(have_VULKAN)
  add_executable(lab_radv labs/radv.c)
  target_link_libraries(lab_radv PRIVATE gyre_backends)
  set(radv_table ${CMAKE_CURRENT_SOURCE_DIR}/labs/radv_stats.txt)
  add_custom_target(radv_stats COMMAND lab_radv write ${radv_table} USES_TERMINAL)
  add_test(NAME labs.radv COMMAND lab_radv check ${radv_table})
  set_tests_properties(labs.radv PROPERTIES LABELS labs TIMEOUT 600 SKIP_RETURN_CODE 77)
endif()
