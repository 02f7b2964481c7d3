// Lines of a user: from a terminal, edited by libedit where the program was built with it, or as they come.
#pragma once
#include <stdbool.h>
#include <stddef.h>

enum chat_read {
    CHAT_LINE,
    CHAT_CLEARED, // SIGINT: what was typed is gone
    CHAT_END      // end of file, SIGTERM, out of memory
};

struct chat_reader;
struct chat_reader *chat_reader_open(bool terminal); // NULL: out of memory
void chat_reader_close(struct chat_reader *reader);  // accepts NULL

// *line is malloc'd, *length bytes and a NUL, without its last line end; it has others where several lines were pasted,
// or typed with a backslash (on a terminal) or Alt-Enter (libedit) between them. What is piped may hold any bytes.
// `status` goes before the prompt sign, on a terminal only.
enum chat_read chat_read(struct chat_reader *reader, const char *status, char **line, size_t *length);

// ---- edit.c: libedit; all NULL and false without it
struct chat_editor;
struct chat_editor *chat_editor_open(void);
void chat_editor_close(struct chat_editor *editor);
enum chat_read chat_editor_read(struct chat_editor *editor, const char *prompt, char **line);
