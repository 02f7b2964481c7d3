// The same from C++: streams a text into a string, counts, and asks for the likeliest next tokens.
#include <gyre/gyre.h>
#include <gyre/gyre_eval.h>
#include <gyre/gyre_quantize.h>
#include <iostream>
#include <memory>
#include <string>

int main(int argc, char **argv)
{
    if (argc != 3) return 2;
    gyre_error err = {};
    gyre_engine *engine = nullptr;
    gyre_session *session = nullptr;
    gyre_generate_params params = {};
    params.size = sizeof params;
    params.text = argv[2];
    params.max_tokens = 64;
    std::string said;
    const auto on_text = [](void *user, const char *text, size_t bytes) {
        static_cast<std::string *>(user)->append(text, bytes);
        return 0;
    };
    gyre_candidate top[3];
    const bool ok = gyre_api_check(GYRE_API_LEVEL, &err) == GYRE_OK &&
                    gyre_engine_open(argv[1], nullptr, &engine, &err) == GYRE_OK &&
                    gyre_session_create(engine, &session, &err) == GYRE_OK &&
                    gyre_generate(session, &params, on_text, &said, nullptr, &err) == GYRE_OK &&
                    gyre_session_top(session, top, 3, nullptr, &err) == GYRE_OK;
    std::cout << said;
    if (!ok) std::cerr << err.message << "\n";
    gyre_session_destroy(session);
    return gyre_engine_close(engine, &err) != GYRE_OK || !ok;
}
