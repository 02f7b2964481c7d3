// See page.h.
#include "cli/serve/page.h"

const char serve_page[] =
    "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>gyre</title></head><body><h1>gyre</h1>"
    "<p>This server speaks the API of OpenAI: <code>POST /v1/completions</code>, <code>POST "
    "/v1/chat/completions</code>, "
    "<code>GET /v1/models</code>, <code>GET /health</code>, <code>GET /metrics</code>.</p></body></html>\n";
