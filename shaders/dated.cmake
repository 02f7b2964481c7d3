# Stops where the committed SPIR-V of a kernel is not that of the GLSL just made: an old one would be built in without a
# word. `ninja matrix_spirv` writes both, from GLSL that can be had before; what is built beside it in one call stops here.
#
#   cmake -DNAME=kernel -DGLSL=FILE -DDIGESTS=shaders/spirv/glsl.sha256 -P dated.cmake
#
# A digest is of the text without blanks, as tests/labs/spirv.sh writes it: those are the preprocessor's own.
file(READ ${GLSL} text)
string(REGEX REPLACE "[ \t\r\n]" "" text "${text}")
string(SHA256 now "${text}")
file(STRINGS ${DIGESTS} was REGEX "  ${NAME}$")
if(NOT was STREQUAL "${now}  ${NAME}")
  message(FATAL_ERROR
    "shaders/spirv/${NAME}.spv is not made of today's source; run ninja matrix_spirv, alone, in a build that has Vulkan and "
    "tests and no sanitizers (others lack that target), and commit what it writes")
endif()
