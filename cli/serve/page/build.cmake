# gyre_serve_page(TARGET): the page at "/" as one HTML document, page.html with style and scripts inside, in TARGET as
# serve_page (cli/serve/page.h). Made again when one of its files changes.
#
# The other use of this file is the joiner: cmake -DOUT=FILE -P build.cmake
if(CMAKE_SCRIPT_MODE_FILE STREQUAL CMAKE_CURRENT_LIST_FILE)
  cmake_minimum_required(VERSION 3.20)
  file(READ ${CMAKE_CURRENT_LIST_DIR}/page.html page)
  foreach(part CSS:page.css MARKDOWN:markdown.js SCRIPT:page.js)
    string(REGEX MATCH "^([A-Z]+):(.*)$" unused ${part})
    file(READ ${CMAKE_CURRENT_LIST_DIR}/${CMAKE_MATCH_2} text)
    string(REPLACE "@${CMAKE_MATCH_1}@" "${text}" page "${page}")
  endforeach()
  file(WRITE ${OUT} "${page}")
  return()
endif()

set(gyre_serve_page_folder ${CMAKE_CURRENT_LIST_DIR})
function(gyre_serve_page target)
  set(out ${CMAKE_BINARY_DIR}/embedded/page.html)
  set(script ${gyre_serve_page_folder}/build.cmake)
  set(parts page.html page.css markdown.js page.js)
  list(TRANSFORM parts PREPEND ${gyre_serve_page_folder}/)
  add_custom_command(OUTPUT ${out} COMMAND ${CMAKE_COMMAND} -DOUT=${out} -P ${script} DEPENDS ${parts} ${script}
    COMMENT "Joining the page" VERBATIM)
  gyre_embed_text(${target} serve_page ${out} cli/serve/page.h)
endfunction()
