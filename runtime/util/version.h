// The version of the program and of the library.
#pragma once
#define GYRE_VERSION "0.1.0"
