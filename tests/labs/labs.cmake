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
  add_library(lab_chip STATIC labs/chip.c labs/listing.c labs/table.c)
  target_link_libraries(lab_chip PUBLIC gyre_backends)
  add_executable(lab_radv labs/radv.c)
  target_link_libraries(lab_radv PRIVATE lab_chip)
  set(radv_table ${CMAKE_CURRENT_SOURCE_DIR}/labs/radv_stats.txt)
  add_custom_target(radv_stats COMMAND lab_radv write ${radv_table} USES_TERMINAL)
  add_test(NAME labs.radv COMMAND lab_radv check ${radv_table})
  set_tests_properties(labs.radv PROPERTIES LABELS labs TIMEOUT 600 SKIP_RETURN_CODE 77)
endif()

# Debian 13 in a folder (scripts/lab): newer drivers and compilers. Nothing of it is ever skipped. The first test makes the
# lab where it is missing; scripts/test leaves the label out unless it is asked for.
set(lab ${CMAKE_SOURCE_DIR}/scripts/lab)
function(gyre_lab13 name)
  add_test(NAME lab13.${name} COMMAND ${ARGN} WORKING_DIRECTORY ${CMAKE_BINARY_DIR})
  set_tests_properties(lab13.${name} PROPERTIES LABELS lab13 TIMEOUT 1500 FIXTURES_REQUIRED lab13
    ENVIRONMENT "${on_device};GYRE_TEST_REQUIRE=vulkan")
endfunction()

set(spirv ${kernel_out} ${kernel_dir}/spirv ${kernel_made})
add_test(NAME house.spirv COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/labs/spirv.sh dated ${spirv})
set_tests_properties(house.spirv PROPERTIES LABELS "house;fast")
# The build itself stops at SPIR-V of other GLSL.
add_test(NAME house.spirv_stale COMMAND ${CMAKE_COMMAND} -DNAME=attn_x -DGLSL=${kernel_out}/matmul_w4_q_x.comp
  -DDIGESTS=${kernel_dir}/spirv/glsl.sha256 -P ${kernel_dir}/dated.cmake)
set_tests_properties(house.spirv_stale PROPERTIES LABELS "house;fast" PASS_REGULAR_EXPRESSION
  "not made of today.*matrix_spirv.*in a[ \n]+build[ \n]+that[ \n]+has[ \n]+Vulkan")

if(have_VULKAN AND NOT GYRE_SANITIZE)
  add_test(NAME lab13.make COMMAND ${lab} make)
  set_tests_properties(lab13.make PROPERTIES LABELS lab13 TIMEOUT 600 FIXTURES_SETUP lab13)
  gyre_lab13(driver ${lab} run $<TARGET_FILE:gyre> devices)
  set_tests_properties(lab13.driver PROPERTIES PASS_REGULAR_EXPRESSION "llvmpipe Mesa (2[6-9]|[3-9][0-9])")
  gyre_lab13(blocks ${lab} run $<TARGET_FILE:test_graph_matrices>) # as they are without matrix units
  set_tests_properties(lab13.blocks PROPERTIES ENVIRONMENT "${on_device};GYRE_TEST_REQUIRE=vulkan,validation,matrices")
  gyre_lab13(matrices ${lab} run $<TARGET_FILE:gyre> devices --json) # they are seen with any headers
  set_tests_properties(lab13.matrices PROPERTIES PASS_REGULAR_EXPRESSION "x[0-9]+ s8s8s32")
  # Kernels whose SPIR-V is committed, since this machine's glslang cannot build them. `ninja matrix_spirv` writes it anew.
  # Test house.spirv needs no lab.
  gyre_lab13(spirv ${CMAKE_CURRENT_SOURCE_DIR}/labs/spirv.sh check ${spirv})
  add_custom_target(matrix_spirv COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/labs/spirv.sh write ${spirv} USES_TERMINAL)
  add_dependencies(matrix_spirv gyre_kernel_glsl)
  foreach(program vulkan vulkan_dot) # every kernel against its reference, on the lab's lavapipe
    gyre_lab13(ops.${program} ${lab} run $<TARGET_FILE:test_ops_${program}>)
  endforeach()
  add_executable(lab13 labs/lab13.c)
  target_link_libraries(lab13 PRIVATE lab_chip)
  gyre_lab13(sees_no_chip ${lab} run $<TARGET_FILE:lab13> check gfx1201 ${CMAKE_CURRENT_SOURCE_DIR}/labs/lab13/gfx1201.txt)
  set_tests_properties(lab13.sees_no_chip PROPERTIES WILL_FAIL ON) # lavapipe must not pass for a chip
  # Chips that are not there, each a table. `ninja lab13_tables` writes them anew.
  set(write)
  foreach(chip vega10 navi10 navi21 navi31 gfx1201 adreno740 adreno750 adreno830 turing ampere)
    set(table ${CMAKE_CURRENT_SOURCE_DIR}/labs/lab13/${chip}.txt)
    gyre_lab13(chip.${chip} ${lab} chip ${chip} $<TARGET_FILE:lab13> check ${chip} ${table})
    list(APPEND write COMMAND ${lab} chip ${chip} $<TARGET_FILE:lab13> write ${chip} ${table})
  endforeach()
  add_custom_target(lab13_tables ${write} USES_TERMINAL)
endif()
