# cmake -DROOT=SOURCE -DINTO=FOLDER -DCC=COMPILER -P tests/check_variants.cmake: builds without Vulkan, without OpenCL and with
# sanitizers configure: a target that only others have is named nowhere. Nothing is compiled.
cmake_minimum_required(VERSION 3.20)
foreach(variant "GYRE_VULKAN=OFF" "GYRE_OPENCL=OFF;GYRE_SANITIZE=address,undefined"
    "GYRE_VULKAN=OFF;GYRE_OPENCL=OFF;GYRE_SANITIZE=thread")
  file(REMOVE_RECURSE ${INTO})
  list(TRANSFORM variant PREPEND -D OUTPUT_VARIABLE options)
  execute_process(COMMAND ${CMAKE_COMMAND} -S ${ROOT} -B ${INTO} -G ${GENERATOR} -DCMAKE_C_COMPILER=${CC} ${options}
    RESULT_VARIABLE failed OUTPUT_QUIET ERROR_VARIABLE why)
  file(REMOVE_RECURSE ${INTO})
  if(failed)
    message(SEND_ERROR "with ${variant} the build does not configure:\n${why}")
  endif()
endforeach()
