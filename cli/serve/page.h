// The page at "/": one HTML document that loads nothing.
#pragma once

extern const char serve_page[];
