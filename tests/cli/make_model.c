// make_model PATH [TYPE [FAMILY]]: a tiny random model as a GGUF file, for the tests of the command line. TYPE: F32
// (default), Q4_0, Q4_1, Q8_0; "HF" writes a Hugging Face directory. FAMILY: llama (default), mistral, qwen2, qwen3.
#include "tests/common/tiny.h"

#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    if (argc < 2) return 2;
    struct tiny_options o = tiny_family(argc > 3 ? argv[3] : "llama");
    o.tied = true;
    if (argc > 2 && strcmp(argv[2], "HF") == 0) return tiny_write_hf(argv[1], &o);
    for (int t = 0; argc > 2 && t < GYRE_DTYPE_COUNT; t++) {
        if (strcmp(gyre_dtype_info((gyre_dtype)t)->name, argv[2]) == 0) o.type = (gyre_dtype)t;
    }
    return tiny_write_gguf(argv[1], &o);
}
