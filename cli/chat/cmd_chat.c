// gyre chat: talks with a model, on a terminal or line by line through pipes.
#include "cli/chat/reader.h"
#include "cli/chat/voice.h"
#include "cli/cli.h"
#include "runtime/util/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct chat {
    const char *model, *system, *choice;
    struct cli_engine engine;
    struct chat_voice voice;
    struct chat_talk talk;
    struct chat_reader *reader;
    bool terminal, colours;
    bool folded; // reasoning is counted, not shown

    // Of the answer that is being printed.
    bool dim;
    size_t thought;  // characters of reasoning that were folded away
    char blanks[64]; // line ends that are held back until something follows them
    size_t n_blanks;
    gyre_error failed;
};

// What is told comes behind what was said, where both are seen in one place; a pipe may have nobody who reads.
static void before_telling(void)
{
    if (isatty(1)) fflush(stdout);
}

static void say(const char *format, const char *what)
{
    before_telling();
    fprintf(stderr, format, what);
    fputc('\n', stderr);
}

// ---- printing an answer -----------------------------------------------------------------------------

static void set_dim(struct chat *c, bool dim)
{
    if (dim == c->dim) return;
    c->dim = dim;
    if (c->colours) fputs(dim ? "\x1b[2m" : "\x1b[0m", stdout);
}

// Reasoning is over: the answer begins on a line of its own.
static void end_reasoning(struct chat *c)
{
    if (c->folded && c->thought) printf("(%zu characters of reasoning)", c->thought);
    set_dim(c, false);
    fputs("\n\n", stdout);
    c->thought = 0;
}

static int on_text(void *user, const char *text, size_t bytes, bool reasoning)
{
    struct chat *c = user;
    if (cli_interrupted()) return 1;
    if (reasoning && !c->terminal) return 0; // what is piped on is the answer
    if (!reasoning && c->thought) end_reasoning(c);
    if (reasoning) {
        c->thought += bytes;
        set_dim(c, true);
        if (!c->folded) fwrite(text, 1, bytes, stdout);
    } else {
        size_t end = bytes; // an answer ends with one line end, whatever the model thinks
        while (end && text[end - 1] == '\n' && bytes - end < sizeof c->blanks) end--;
        if (end) {
            fwrite(c->blanks, 1, c->n_blanks, stdout);
            c->n_blanks = 0;
            fwrite(text, 1, end, stdout);
        }
        for (; end < bytes && c->n_blanks < sizeof c->blanks; end++) c->blanks[c->n_blanks++] = '\n';
    }
    return cli_flush(&c->failed) != GYRE_OK;
}

static gyre_status answer(struct chat *c, gyre_error *err)
{
    c->n_blanks = c->thought = 0;
    gyre_status st = chat_answer(&c->voice, &c->talk, on_text, c, err);
    if (c->thought && c->folded) end_reasoning(c);
    set_dim(c, false);
    if (c->failed.code == GYRE_E_CANCELLED && !cli_interrupted()) c->failed = (gyre_error){0}; // Ctrl-C in a write
    const bool stopped = st == GYRE_E_CANCELLED && !cli_interrupted() && !c->failed.code;
    if (stopped) cli_take_sigint();
    if (st == GYRE_OK || stopped) fputc('\n', stdout);
    if (st == GYRE_OK && c->voice.result.why == GYRE_STOP_CONTEXT)
        say("%s", "the context is full: the answer was cut; /reset, or start with --context-shift");
    if (c->failed.code) *err = c->failed;
    if (stopped) return GYRE_OK;
    if (st == GYRE_OK) st = cli_flush(err);
    return st;
}

// ---- commands ---------------------------------------------------------------------------------------

// What a command does with the rest of its line; failures are told by the caller. Returns CHAT_LEAVE to end.
enum { CHAT_STAY, CHAT_LEAVE };
typedef int (*command)(struct chat *c, const char *rest, gyre_error *err);

static int do_help(struct chat *c, const char *rest, gyre_error *err);

// The talk is another one: what the prompt tells of the last answer is no longer true of it.
static void change_talk(struct chat *c) { c->voice.result = (gyre_generate_result){0}; }

static int do_reset(struct chat *c, const char *rest, gyre_error *err)
{
    (void)rest, (void)err;
    chat_talk_forget(&c->talk);
    change_talk(c);
    say("%s", "the talk is forgotten");
    return CHAT_STAY;
}

static int do_system(struct chat *c, const char *rest, gyre_error *err)
{
    chat_talk_end(&c->talk);
    change_talk(c);
    if (!chat_talk_begin(&c->talk, *rest ? rest : NULL))
        gyre_fail(err, GYRE_E_NOMEM, "cannot set the system text: out of memory");
    else say("%s", *rest ? "a new talk with this system text" : "a new talk without a system text");
    return CHAT_STAY;
}

static int do_save(struct chat *c, const char *rest, gyre_error *err)
{
    if (!*rest) gyre_fail(err, GYRE_E_INVALID, "cannot save the talk: no file is named; /save FILE");
    else if (chat_talk_save(&c->talk, rest, err) == GYRE_OK) say("saved as %s", rest);
    return CHAT_STAY;
}

static int do_load(struct chat *c, const char *rest, gyre_error *err)
{
    char text[40];
    if (!*rest) {
        gyre_fail(err, GYRE_E_INVALID, "cannot load a talk: no file is named; /load FILE");
    } else if (chat_talk_load(&c->talk, rest, err) == GYRE_OK) {
        change_talk(c);
        snprintf(text, sizeof text, "%zu", chat_talk_length(&c->talk));
        say("a talk of %s messages", text);
    }
    return CHAT_STAY;
}

static int do_regen(struct chat *c, const char *rest, gyre_error *err)
{
    (void)rest;
    json_t *last = json_incref(json_array_get(c->talk.messages, chat_talk_length(&c->talk) - 1));
    if (!chat_talk_take_back(&c->talk, "assistant")) {
        json_decref(last);
        gyre_fail(err, GYRE_E_INVALID, "cannot answer again: there is no answer yet");
        return CHAT_STAY;
    }
    c->voice.sampling.params.sampling.seed++; // else a sampled answer would be the same again
    const size_t before = chat_talk_length(&c->talk);
    if (answer(c, err) != GYRE_OK && chat_talk_length(&c->talk) == before) json_array_append(c->talk.messages, last);
    json_decref(last);
    return CHAT_STAY;
}

static int do_params(struct chat *c, const char *rest, gyre_error *err)
{
    gyre_generate_params *const p = &c->voice.sampling.params;
    const struct {
        const char *name;
        float *real;
        uint32_t *whole;
        double low, high;
    } all[] = {{"temp", &p->sampling.temperature, NULL, 0, 100},
               {"top-k", NULL, &p->sampling.top_k, 0, 256},
               {"top-p", &p->sampling.top_p, NULL, 0.000001, 1},
               {"min-p", &p->min_p, NULL, 0, 1},
               {"repeat-penalty", &p->repeat_penalty, NULL, 0.000001, 1000},
               {"presence-penalty", &p->presence_penalty, NULL, -1000, 1000},
               {"frequency-penalty", &p->frequency_penalty, NULL, -1000, 1000},
               {"penalty-window", NULL, &p->penalty_window, 1, 1 << 24},
               {"seed", NULL, &p->sampling.seed, 0, 4294967295.0},
               {"n", NULL, &p->max_tokens, 0, 1000000}};
    const size_t length = strcspn(rest, " =");
    const char *value = rest + length + strspn(rest + length, " =");
    bool found = *rest == 0;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (*rest && (strncmp(all[i].name, rest, length) != 0 || all[i].name[length])) continue;
        found = true;
        double v = 0;
        const bool sets = *rest && *value;
        if (sets && (!cli_decimal(value, &v) || v < all[i].low || v > all[i].high ||
                     (all[i].whole && v != (double)(uint32_t)v))) {
            gyre_fail(err, GYRE_E_INVALID, "cannot set %s to %.40s: it takes %s from %.10g to %.10g", all[i].name,
                      value, all[i].whole ? "a whole number" : "a number", all[i].low, all[i].high);
            return CHAT_STAY;
        }
        if (sets && all[i].real) *all[i].real = (float)v;
        if (sets && all[i].whole) *all[i].whole = (uint32_t)v;
        if (all[i].real) fprintf(stderr, "%-18s %g\n", all[i].name, (double)*all[i].real);
        else fprintf(stderr, "%-18s %u\n", all[i].name, *all[i].whole);
    }
    if (!found) gyre_fail(err, GYRE_E_INVALID, "unknown parameter (%.*s): /params lists them", (int)length, rest);
    return CHAT_STAY;
}

static int do_fold(struct chat *c, const char *rest, gyre_error *err)
{
    (void)rest, (void)err;
    c->folded = !c->folded;
    say("%s", c->folded ? "reasoning is folded away" : "reasoning is shown");
    return CHAT_STAY;
}

static int do_exit(struct chat *c, const char *rest, gyre_error *err)
{
    (void)c, (void)rest, (void)err;
    return CHAT_LEAVE;
}

static const struct {
    const char *name, *rest, *help;
    command run;
} commands[] = {
    {"/help", "", "this list", do_help},
    {"/reset", "", "forget the talk, keep the system text", do_reset},
    {"/system", "TEXT", "begin a new talk with this system text; none: without", do_system},
    {"/save", "FILE", "write the talk as JSON", do_save},
    {"/load", "FILE", "go on with a talk that was saved", do_load},
    {"/regen", "", "answer the last turn again", do_regen},
    {"/params", "[NAME [VALUE]]", "show how tokens are chosen, or change it", do_params},
    {"/fold", "", "show reasoning, or fold it away", do_fold},
    {"/exit", "", "end; Ctrl-D does, too", do_exit},
};
enum { COMMANDS = sizeof commands / sizeof *commands };

static int do_help(struct chat *c, const char *rest, gyre_error *err)
{
    (void)c, (void)rest, (void)err;
    before_telling();
    for (int i = 0; i < COMMANDS; i++)
        fprintf(stderr, "%-8s %-15s %s\n", commands[i].name, commands[i].rest, commands[i].help);
    fputs("A backslash at the end of a line goes on with the next one; pasted lines stay together. Ctrl-C ends an "
          "answer.\n",
          stderr);
    return CHAT_STAY;
}

static int run_command(struct chat *c, const char *line)
{
    gyre_error err = {0};
    const size_t n = strcspn(line, " \t\n");
    int how = CHAT_STAY;
    bool found = false;
    for (int i = 0; i < COMMANDS && !found; i++) {
        found = strlen(commands[i].name) == n && strncmp(line, commands[i].name, n) == 0;
        if (found) how = commands[i].run(c, line + n + strspn(line + n, " \t\n"), &err);
    }
    if (!found)
        gyre_fail(&err, GYRE_E_INVALID, "unknown command (%.*s): /help lists them", (int)GYRE_MIN(n, 60u), line);
    if (err.code) say("%s", err.message);
    return how;
}

// ---- the talk ---------------------------------------------------------------------------------------

static gyre_status turn(struct chat *c, const char *line, size_t length, uint32_t number, gyre_error *err)
{
    GYRE_TRY(chat_talk_ask(&c->talk, line, length, number, err));
    const size_t before = chat_talk_length(&c->talk);
    const gyre_status st = answer(c, err);
    if (chat_talk_length(&c->talk) <= before) chat_talk_take_back(&c->talk, "user"); // nothing was said to it
    return st;
}

static void status_of(const struct chat *c, char out[100])
{
    const gyre_generate_result *r = &c->voice.result;
    const size_t used = r->prompt_tokens + r->n_tokens;
    out[0] = 0;
    if (used) snprintf(out, 100, "%zu/%u %.1f tok/s ", used, c->voice.context, c->voice.tokens_per_second);
}

static gyre_status talk_on(struct chat *c, gyre_error *err)
{
    char status[100], *line;
    size_t length;
    for (uint32_t number = 1;; number++) {
        status_of(c, status);
        const enum chat_read how = chat_read(c->reader, status, &line, &length);
        if (how == CHAT_END) return cli_interrupted() ? gyre_fail(err, GYRE_E_CANCELLED, "interrupted") : GYRE_OK;
        if (how == CHAT_CLEARED || strspn(line, " \t\n") == length) {
            free(line);
            continue;
        }
        gyre_status st = GYRE_OK;
        const bool leaves = c->terminal && *line == '/' && run_command(c, line) == CHAT_LEAVE;
        if (!c->terminal || *line != '/') st = turn(c, line, length, number, err);
        free(line);
        if (leaves) return GYRE_OK;
        if (st == GYRE_OK) continue;
        if (!c->terminal || cli_interrupted() || c->failed.code) return st;
        say("%s", err->message); // on a terminal there is a next turn
        *err = (gyre_error){0};
    }
}

static int chat(struct chat *c)
{
    gyre_error err = {0};
    gyre_status st = GYRE_OK;
    c->terminal = isatty(0);
    c->colours = c->terminal && isatty(1);
    if (!chat_talk_begin(&c->talk, c->system)) st = gyre_fail(&err, GYRE_E_NOMEM, "cannot chat: out of memory");
    if (st == GYRE_OK) st = cli_open(c->model, &c->engine, false, &c->voice.engine, &err);
    if (st == GYRE_OK) st = chat_voice_open(&c->voice, c->model, c->choice, &err);
    if (st == GYRE_OK) {
        c->reader = chat_reader_open(c->terminal);
        cli_spare_program(c->terminal);
        if (!c->reader) st = gyre_fail(&err, GYRE_E_NOMEM, "cannot chat: out of memory");
        else st = talk_on(c, &err);
        cli_spare_program(false);
    }
    chat_reader_close(c->reader);
    chat_voice_close(&c->voice);
    gyre_engine_close(c->voice.engine, NULL);
    chat_talk_end(&c->talk);
    return st == GYRE_OK ? 0 : cli_fail(&err);
}

static int run(int argc, char **argv)
{
    struct chat c = {0};
    cli_sampling_begin(&c.voice.sampling, 0);
    const struct cli_option options[] = {
        {"--system", "TEXT", "what the model is told before the talk", CLI_TEXT, &c.system, 0, 0, NULL},
        {"-n", "N", "tokens of an answer at most; default: up to the context's end", CLI_U32,
         &c.voice.sampling.params.max_tokens, 1, 1000000, NULL},
        {"--chat-template", "FILE|NAME", "in place of the model's own", CLI_TEXT, &c.choice, 0, 0, NULL},
        CLI_SAMPLING_OPTIONS(c.voice.sampling),
        {"--ctx", "N", "longest talk in tokens; default: the model's, at most 4096", CLI_U32, &c.engine.context, 1,
         1 << 24, NULL},
        {"--context-shift", NULL, "forget the oldest turns when the context is full", CLI_FLAG, &c.voice.shift, 0, 0,
         NULL},
        CLI_ENGINE_OPTIONS(c.engine),
        CLI_PRE_OPTION(c.engine.tokens),
    };
    int stop = cli_parse(&cli_chat, options, sizeof options / sizeof *options, argc, argv, &c.model);
    if (stop < 0) stop = cli_sampling_check(&c.voice.sampling);
    return stop >= 0 ? stop : chat(&c);
}

const struct cli_command cli_chat = {"chat", "MODEL", "Talk with a model", run, 1, false};
