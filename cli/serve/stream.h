// A job's answer as server-sent events, as libmicrohttpd asks for them: it waits until there are some, and says a
// comment where nothing comes for a while, so that neither client nor proxy gives up.
#pragma once
#include "cli/serve/serve.h"

#include <sys/types.h>

struct serve_stream;

struct serve_stream *serve_stream_new(struct serve *serve, struct serve_job *job); // holds the job; NULL: out of memory
// MHD_ContentReaderCallback and MHD_ContentReaderFreeCallback.
ssize_t serve_stream_read(void *stream, uint64_t at, char *out, size_t most);
void serve_stream_free(void *stream); // accepts NULL
