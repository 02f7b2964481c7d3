// Which build this is: a journal of another one is not gone on with, since its numbers may differ in their last bits.
#pragma once

extern const char gyre_build_identity[]; // made by quantizer/build_identity.cmake: 64 hexadecimal digits
