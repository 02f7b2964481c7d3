// See folder.h.
#include "tests/quantizer/trust/folder.h"

gyre_status folder_quantize(gyre_quantize_params p, const char *from, const char *to, gyre_error *err)
{
    p.size = sizeof p, p.source = from, p.output = to, p.device = "cpu";
    return gyre_quantize(&p, NULL, err);
}

struct tiny_options folder_shape(const char *arch)
{
    struct tiny_options o = tiny_family(arch);
    o.ffn = 128;
    return o;
}
