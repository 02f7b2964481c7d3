// The host tool of the kernel build: turns one kernel variant into C.
//
//   embed kernel OUT.c NAME OP FORM NEEDS PARAMS N_WRITES N_BINDINGS "DEFINES" GLSL SPV SPV_DOT FOLDER SOURCE.k
//     one struct gyre_kernel_source (backends/kernel_source.h) from the preprocessed GLSL (for the constants), the two
//     SPIR-V files ("-": none) and the source (inlined into OpenCL C together with its includes from FOLDER; of a
//     SOURCE.vk.k only the hash is kept)
//   embed table OUT.c NAME...
//     the table of all of them
//
// It knows the text of shaders/dialect.h only as far as the names WORKGROUP and SPEC expand to.
#include <ctype.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_SPEC = 16, MAX_FILES = 32, OP_SDOT = 4450 };

static void die(const char *what, const char *where)
{
    fprintf(stderr, "embed: %s (%s)\n", what, where);
    exit(1);
}

struct text {
    char *data;
    size_t size, cap;
};

static void append(struct text *t, const char *data, size_t size)
{
    if (t->size + size + 1 > t->cap) {
        t->cap = 2 * t->cap + size + 1;
        t->data = realloc(t->data, t->cap);
        if (!t->data) die("out of memory", "text");
    }
    memcpy(t->data + t->size, data, size);
    t->size += size;
    t->data[t->size] = 0;
}

static void append_string(struct text *t, const char *s) { append(t, s, strlen(s)); }

static struct text read_file(const char *path)
{
    struct text t = {0};
    char block[1 << 16];
    FILE *f = fopen(path, "rb");
    if (!f) die("cannot open", path);
    append(&t, "", 0);
    for (size_t n; (n = fread(block, 1, sizeof block, f)) > 0;) append(&t, block, n);
    if (ferror(f)) die("cannot read", path);
    fclose(f);
    return t;
}

// ---- OpenCL text --------------------------------------------------------------------------------------

// Replaces every comment by a space. Kernels contain no string or character literals.
static void strip_comments(char *s)
{
    char *out = s;
    while (*s) {
        if (s[0] == '/' && s[1] == '*') {
            const char *end = strstr(s + 2, "*/");
            if (!end) die("unterminated comment", "kernel source");
            s += end + 2 - s;
            *out++ = ' ';
        } else if (s[0] == '/' && s[1] == '/') {
            while (*s && *s != '\n') s++;
        } else {
            *out++ = *s++;
        }
    }
    *out = 0;
}

// A driver sees no include path: quoted includes are inlined, each file once. Blank lines and indentation are dropped.
static void inline_file(struct text *out, const char *folder, const char *path)
{
    static char *seen[MAX_FILES];
    static int n_seen;
    for (int i = 0; i < n_seen; i++)
        if (!strcmp(seen[i], path)) return;
    if (n_seen == MAX_FILES) die("too many includes", path);
    if (!(seen[n_seen++] = strdup(path))) die("out of memory", path);

    struct text t = read_file(path);
    strip_comments(t.data);
    for (char *line = t.data, *next; *line; line = next) {
        next = strchr(line, '\n');
        if (next) *next++ = 0;
        else next = line + strlen(line);
        size_t n = strlen(line);
        while (n && isspace((unsigned char)line[n - 1])) line[--n] = 0;
        while (isspace((unsigned char)*line)) line++;
        if (!*line || !strcmp(line, "#pragma once")) continue;
        char name[200], file[1024];
        if (sscanf(line, "#include \"%199[^\"]\"", name) == 1) {
            snprintf(file, sizeof file, "%s/%s", folder, name);
            inline_file(out, folder, file);
        } else {
            append_string(out, line);
            append(out, "\n", 1);
        }
    }
    free(t.data);
}

// "-DA -DB=4" as #define lines.
static void append_defines(struct text *out, const char *defines)
{
    struct text copy = {0};
    append_string(&copy, defines);
    for (char *word = strtok(copy.data, " "); word; word = strtok(NULL, " ")) {
        if (strncmp(word, "-D", 2)) die("a define that is not -DNAME", word);
        char *value = strchr(word, '=');
        if (value) *value++ = 0;
        append_string(out, "#define ");
        append_string(out, word + 2);
        append_string(out, " ");
        append_string(out, value ? value : "1");
        append_string(out, "\n");
    }
    free(copy.data);
}

static struct text opencl_text(const char *name, const char *defines, const char *folder, const char *source)
{
    struct text t = {0};
    char path[1024];
    append_string(&t, "#define GYRE_CL 1\n#define GYRE_ENTRY gyre_");
    append_string(&t, name);
    append_string(&t, "\n");
    append_defines(&t, defines);
    snprintf(path, sizeof path, "%s/dialect.h", folder);
    inline_file(&t, folder, path);
    snprintf(path, sizeof path, "%s/params.h", folder);
    inline_file(&t, folder, path);
    inline_file(&t, folder, source);
    return t;
}

// ---- constants ----------------------------------------------------------------------------------------

struct spec {
    uint32_t count;
    char name[MAX_SPEC][64];
    int value[MAX_SPEC];
};

// Finds what SPEC and WORKGROUP expand to in the preprocessed GLSL, so that #if in a kernel has its say.
static struct spec parse_spec(const char *glsl, const char *path)
{
    struct spec spec = {0};
    for (const char *at = glsl; (at = strstr(at, "constant_id = ")); at++) {
        unsigned id;
        char name[64];
        int value;
        if (sscanf(at, "constant_id = %u) const int %63[A-Za-z0-9_] = %d;", &id, name, &value) != 3)
            die("a SPEC whose default is not an integer", path);
        if (id >= MAX_SPEC || spec.name[id][0]) die("a SPEC id that is too large or used twice", path);
        strcpy(spec.name[id], name);
        spec.value[id] = value;
        if (id >= spec.count) spec.count = id + 1;
    }
    for (uint32_t i = 0; i < spec.count; i++)
        if (!spec.name[i][0]) die("SPEC ids with a gap", path);
    const char *group = strstr(glsl, "gyre_workgroup = ivec3(");
    if (group &&
        sscanf(group, "gyre_workgroup = ivec3(%d, %d, %d)", &spec.value[0], &spec.value[1], &spec.value[2]) != 3)
        die("WORKGROUP takes three integers", path);
    return spec;
}

// ---- output -------------------------------------------------------------------------------------------

static uint64_t fnv1a(const char *data, size_t size)
{
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < size; i++) h = (h ^ (unsigned char)data[i]) * 1099511628211u;
    return h;
}

static void write_words(FILE *f, const char *name, const struct text *t)
{
    fprintf(f, "static const uint32_t %s[] = {", name);
    for (size_t i = 0; i + 4 <= t->size; i += 4) {
        uint32_t word;
        memcpy(&word, t->data + i, 4);
        fprintf(f, "%s0x%x,", i % 64 ? "" : "\n", word);
    }
    fprintf(f, "\n};\n");
}

static void write_string(FILE *f, const char *name, const struct text *t)
{
    fprintf(f, "static const char %s[] =\n\"", name);
    for (size_t i = 0; i < t->size; i++) {
        const char c = t->data[i];
        if (c == '\n') fputs(i + 1 < t->size ? "\\n\"\n\"" : "\\n", f);
        else if (c == '"' || c == '\\') fprintf(f, "\\%c", c);
        else fputc(c, f);
    }
    fprintf(f, "\";\n");
}

// Whether a module holds OpSDot: instructions follow a header of 5 words, each begins with size << 16 | opcode.
static bool uses_dot_product(const struct text *spirv)
{
    uint32_t word;
    for (size_t i = 5; i < spirv->size / 4; i += word >> 16) {
        memcpy(&word, spirv->data + 4 * i, 4);
        if ((word & 0xFFFFu) == OP_SDOT) return true;
        if (!(word >> 16)) die("not a SPIR-V module", "spirv");
    }
    return false;
}

static FILE *open_output(const char *path)
{
    FILE *f = fopen(path, "wb");
    if (!f) die("cannot write", path);
    fprintf(f, "// Generated by shaders/embed.c.\n#include \"backends/kernel_source.h\"\n");
    return f;
}

static void close_output(FILE *f, const char *path)
{
    if (ferror(f) | fclose(f)) die("cannot write", path);
}

static void write_kernel(char **arg)
{
    const char *out = arg[0], *name = arg[1], *op = arg[2], *params = arg[5], *writes = arg[6], *bindings = arg[7];
    const char *defines = arg[8], *glsl_path = arg[9], *folder = arg[12], *source = arg[13];
    const struct text glsl = read_file(glsl_path), cl = opencl_text(name, defines, folder, source);
    const struct spec spec = parse_spec(glsl.data, glsl_path);
    const bool vulkan_only = strstr(source, ".vk.k") != NULL;
    struct text spirv = {0}, dot = {0};
    if (strcmp(arg[10], "-")) spirv = read_file(arg[10]);
    if (strcmp(arg[11], "-")) dot = read_file(arg[11]);
    if (!uses_dot_product(&dot)) dot.size = 0; // the same code twice

    FILE *f = open_output(out);
    fprintf(f, "#include \"shaders/params.h\"\n");
    if (spirv.size) write_words(f, "spirv", &spirv);
    if (dot.size) write_words(f, "spirv_dot", &dot);
    if (!vulkan_only) write_string(f, "opencl", &cl);
    fprintf(f, "extern const struct gyre_kernel_source gyre_kernel_%s;\n", name);
    fprintf(f, "const struct gyre_kernel_source gyre_kernel_%s = {\n", name);
    fprintf(f, "    .name = \"%s\", .op = \"%s\", .n_writes = %s, .n_bindings = %s,\n    .form = 0", name, op, writes,
            bindings);
    for (char *word = strtok(arg[3], "|"); word; word = strtok(NULL, "|")) fprintf(f, " | GYRE_FORM_%s", word);
    fprintf(f, ", .needs = 0");
    for (char *word = strtok(arg[4], "|"); word; word = strtok(NULL, "|")) fprintf(f, " | GYRE_NEED_%s", word);
    fprintf(f, ",\n");
    fprintf(f, "    .params_size = sizeof(struct gyre_%s_params), .n_spec = %u,\n    .spec_names = {", params,
            spec.count);
    for (uint32_t i = 0; i < spec.count; i++) fprintf(f, "\"%s\", ", spec.name[i]);
    fprintf(f, "},\n    .spec_defaults = {");
    for (uint32_t i = 0; i < spec.count; i++) fprintf(f, "%uu, ", (unsigned)spec.value[i]);
    fprintf(f, "},\n");
    if (spirv.size) fprintf(f, "    .spirv = spirv, .spirv_bytes = sizeof spirv,\n");
    if (dot.size) fprintf(f, "    .spirv_dot = spirv_dot, .spirv_dot_bytes = sizeof spirv_dot,\n");
    if (!vulkan_only) fprintf(f, "    .opencl = opencl,\n");
    fprintf(f, "    .hash = 0x%llxu,\n};\n", (unsigned long long)fnv1a(cl.data, cl.size));
    close_output(f, out);
}

static void write_table(const char *out, char **names, int n)
{
    FILE *f = open_output(out);
    fprintf(f, "#include <string.h>\n");
    for (int i = 0; i < n; i++) fprintf(f, "extern const struct gyre_kernel_source gyre_kernel_%s;\n", names[i]);
    fprintf(f, "const struct gyre_kernel_source *const gyre_kernel_sources[] = {\n");
    for (int i = 0; i < n; i++) fprintf(f, "    &gyre_kernel_%s,\n", names[i]);
    fprintf(f, "};\nconst uint32_t gyre_kernel_source_count = %d;\n", n);
    fprintf(f, "const struct gyre_kernel_source *gyre_kernel_source_find(const char *name)\n{\n"
               "    for (uint32_t i = 0; i < gyre_kernel_source_count; i++)\n"
               "        if (!strcmp(gyre_kernel_sources[i]->name, name)) return gyre_kernel_sources[i];\n"
               "    return NULL;\n}\n"
               "const struct gyre_kernel_source *gyre_kernel_source_of(const char *op, uint32_t form)\n{\n"
               "    for (uint32_t i = 0; i < gyre_kernel_source_count; i++)\n"
               "        if (gyre_kernel_sources[i]->form == form && !strcmp(gyre_kernel_sources[i]->op, op))\n"
               "            return gyre_kernel_sources[i];\n"
               "    return NULL;\n}\n");
    close_output(f, out);
}

int main(int argc, char **argv)
{
    if (argc == 16 && !strcmp(argv[1], "kernel")) write_kernel(argv + 2);
    else if (argc >= 4 && !strcmp(argv[1], "table")) write_table(argv[2], argv + 3, argc - 3);
    else die("wrong arguments", "see the head of shaders/embed.c");
    return 0;
}
