# Puts the built-in recipes into one C file: `recipe_builtin_c`, the table of quantizer/recipe/builtin.h, in this order.
# Texts go in as bytes, so that nothing in them needs escaping. CMake runs again when one changes.
set(recipe_names rtn smoothquant awq quarot-rtn quarot-gptq spinquant ostquant fast best)

set(recipe_builtin_c ${CMAKE_BINARY_DIR}/recipes/recipe_builtin.c)
set(recipe_arrays "")
set(recipe_rows "")
set(recipe_i 0)
foreach(name ${recipe_names})
  set(file ${CMAKE_CURRENT_LIST_DIR}/${name}.yaml)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${file})
  file(READ ${file} text)
  file(READ ${file} whole HEX)
  set(row "\"${name}\"")
  foreach(key about source) # both are plain scalars of one line; a test holds them against what the parser reads
    if(NOT text MATCHES "\n${key}: ([^\n\"\\]+)\n")
      message(FATAL_ERROR "${file}: no line \"${key}: TEXT\"")
    endif()
    string(APPEND row ", \"${CMAKE_MATCH_1}\"")
  endforeach()
  string(REGEX REPLACE "(..)" "0x\\1, " bytes "${whole}")
  string(REGEX REPLACE "(................................................................................................)" "\\1\n" bytes "${bytes}")
  string(APPEND recipe_arrays "static const char text_${recipe_i}[] = {\n${bytes}0};\n")
  string(APPEND recipe_rows "    {${row}, text_${recipe_i}, sizeof text_${recipe_i} - 1},\n")
  math(EXPR recipe_i "${recipe_i} + 1")
endforeach()
file(CONFIGURE OUTPUT ${recipe_builtin_c} @ONLY CONTENT
"// Generated from quantizer/recipes/*.yaml.
#include \"quantizer/recipe/builtin.h\"
@recipe_arrays@
const struct gyre_recipe_builtin gyre_recipe_builtins[] = {
@recipe_rows@    {0},
};
")
