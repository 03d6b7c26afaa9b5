/* options.c: a command line against a table. See support.h. */
#include "support.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINE 79
#define INDENT 24

/* The choices of an OPTION_CHOICE: the first word of its text. */
static size_t choices_length(const option *o)
{
    return strcspn(o->text, " ");
}

/* Choice number `at`: where it begins and how long it is; 0 past the last. */
static size_t choice(const option *o, int at, const char **begin)
{
    const char *end = o->text + choices_length(o);
    const char *from = o->text;
    size_t length = strcspn(from, "| ");

    for (; at > 0; at--) {
        from += length;
        if (from >= end) return 0;
        from++;
        length = strcspn(from, "| ");
    }
    *begin = from;
    return length;
}

/* ---------------------------------------------------------------- help */

/* Words from column INDENT on, broken before the line is full. */
static void print_words(const char *text, size_t *column)
{
    while (*text != '\0') {
        const size_t word = strcspn(text, " ");
        if (*column > INDENT && *column + 1 + word > LINE) {
            printf("\n%*s", INDENT, "");
            *column = INDENT;
        } else if (*column > INDENT) {
            putchar(' ');
            (*column)++;
        }
        printf("%.*s", (int)word, text);
        *column += word;
        text += word;
        while (*text == ' ') text++;
    }
}

/* What --help says of the value before it is changed. */
static void print_default(const option *o, size_t *column)
{
    const char *name = "";
    char text[512] = "";
    size_t length;

    switch (o->kind) {
    case OPTION_TEXT:
        if (*(const char **)o->to != NULL)
            snprintf(text, sizeof text, "[%.500s]", *(const char **)o->to);
        break;
    case OPTION_INT:
        snprintf(text, sizeof text, "[%d]", *(const int *)o->to);
        break;
    case OPTION_REAL:
        snprintf(text, sizeof text, "[%g]", (double)*(const float *)o->to);
        break;
    case OPTION_SEED:
        snprintf(text, sizeof text, "[%llu]",
            (unsigned long long)*(const uint64_t *)o->to);
        break;
    case OPTION_CHOICE:
        length = choice(o, *(const int *)o->to, &name);
        snprintf(text, sizeof text, "[%.*s]", (int)length, name);
        break;
    case OPTION_FLAG:
        break;
    }
    print_words(text, column);
}

static void print_option(const option *o)
{
    static const char *const value[] = { "TEXT", "N", "X", "", "N", "" };
    const char *text = o->text;
    char head[256];
    size_t column;

    snprintf(head, sizeof head, "  %s %s", o->name, value[o->kind]);
    if (o->kind == OPTION_CHOICE) {
        snprintf(head, sizeof head, "  %s %.*s", o->name,
            (int)choices_length(o), text);
        text += choices_length(o);
        while (*text == ' ') text++;
    }
    column = strlen(head);
    if (column + 2 > INDENT) printf("%s\n%*s", head, INDENT, "");
    else printf("%-*s", INDENT, head);
    column = INDENT;
    print_words(text, &column);
    print_default(o, &column);
    putchar('\n');
}

static void print_help(const char *summary, const option *options, int count,
    const char *program)
{
    int i;

    printf("%s: %s\n\nUsage: %s [options]\n", program, summary, program);
    for (i = 0; i < count; i++) print_option(&options[i]);
    printf("%-*s%s\n", INDENT, "  --help", "this text");
    printf("In brackets: what holds without the option.\n");
}

/* -------------------------------------------------------------- values */

static void read_int(const option *o, const char *value)
{
    char *end;
    long number;

    errno = 0;
    number = strtol(value, &end, 10);
    if (end == value || *end != '\0')
        fail("%s %s: give a whole number", o->name, value);
    if (errno != 0 || (double)number < o->least || (double)number > o->most)
        fail("%s %s: must be %.0f .. %.0f", o->name, value, o->least,
            o->most);
    *(int *)o->to = (int)number;
}

static void read_real(const option *o, const char *value)
{
    char *end;
    double number = strtod(value, &end);

    if (end == value || *end != '\0')
        fail("%s %s: give a number", o->name, value);
    /* The one test is false for NaN too. */
    if (!(number >= o->least && number <= o->most))
        fail("%s %s: must be %g .. %g", o->name, value, o->least, o->most);
    *(float *)o->to = (float)number;
}

static void read_seed(const option *o, const char *value)
{
    char *end;
    unsigned long long number;

    errno = 0;
    number = strtoull(value, &end, 10);
    if (end == value || *end != '\0' || errno != 0
        || strchr(value, '-') != NULL)
        fail("%s %s: give a whole number, 0 or more", o->name, value);
    *(uint64_t *)o->to = (uint64_t)number;
}

static void read_choice(const option *o, const char *value)
{
    const char *name = "";
    size_t length;
    int at;

    for (at = 0; (length = choice(o, at, &name)) > 0; at++)
        if (strlen(value) == length && memcmp(value, name, length) == 0) {
            *(int *)o->to = at;
            return;
        }
    fail("%s %s: give one of %.*s", o->name, value, (int)choices_length(o),
        o->text);
}

static void read_value(const option *o, const char *value)
{
    switch (o->kind) {
    case OPTION_TEXT:
        if (value[0] == '\0') fail("%s: the value is empty", o->name);
        *(const char **)o->to = value;
        break;
    case OPTION_INT: read_int(o, value); break;
    case OPTION_REAL: read_real(o, value); break;
    case OPTION_SEED: read_seed(o, value); break;
    case OPTION_CHOICE: read_choice(o, value); break;
    case OPTION_FLAG: break;
    }
}

/* The option that `word` names, up to its end or to a '='. Names of version
   0.1.0 still work. */
static const option *find(const option *options, int count, const char *word)
{
    static const char *const renamed[][2] = {
        { "--no-bridge", "--no-decoder-embed" }, { "--lanes", "--isa" }
    };
    size_t length = strcspn(word, "="), k;
    int i;

    for (k = 0; k < sizeof renamed / sizeof renamed[0]; k++)
        if (strlen(renamed[k][0]) == length
            && memcmp(renamed[k][0], word, length) == 0) {
            word = renamed[k][1];
            length = strlen(word);
            break;
        }
    for (i = 0; i < count; i++)
        if (strlen(options[i].name) == length
            && memcmp(options[i].name, word, length) == 0)
            return &options[i];
    return NULL;
}

static int given_count;
static char **given_words;

int option_given(const char *name)
{
    const size_t length = strlen(name);
    int i;

    for (i = 1; i < given_count; i++)
        if (strncmp(given_words[i], name, length) == 0
            && (given_words[i][length] == '\0'
                || given_words[i][length] == '=')) return 1;
    return 0;
}

void options_read(const char *summary, const option *options, int count,
    int argc, char **argv)
{
    const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
    const char *program = slash != NULL ? slash + 1
        : argc > 0 ? argv[0] : "program";
    int i;

    given_count = argc;
    given_words = argv;
    program_named(program);
    for (i = 1; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            print_help(summary, options, count, program);
            if (fflush(stdout) != 0)
                fail("standard output: %s", strerror(errno));
            exit(0);
        }
    for (i = 1; i < argc; i++) {
        const char *equals = strchr(argv[i], '=');
        const option *o = find(options, count, argv[i]);

        if (o == NULL && argv[i][0] != '-')
            fail("%s: what is this for? Values follow an option; see --help",
                argv[i]);
        if (o == NULL)
            fail("unknown option %.*s; see --help",
                (int)strcspn(argv[i], "="), argv[i]);
        if (o->kind == OPTION_FLAG) {
            if (equals != NULL) fail("%s takes no value", o->name);
            *(int *)o->to = 1;
        } else if (equals != NULL) {
            read_value(o, equals + 1);
        } else if (i + 1 >= argc || strncmp(argv[i + 1], "--", 2) == 0) {
            fail("%s: its value is missing", o->name);
        } else {
            read_value(o, argv[++i]);
        }
    }
}

const char *option_value(const option *o, char *text, size_t bytes)
{
    const char *at = o->text;
    int k;

    switch (o->kind) {
    case OPTION_TEXT:
        return note_text(text, bytes, *(const char **)o->to != NULL
            ? *(const char **)o->to : "");
    case OPTION_REAL:
        snprintf(text, bytes, "%.7g", (double)*(const float *)o->to);
        break;
    case OPTION_SEED:
        snprintf(text, bytes, "%llu",
            (unsigned long long)*(const uint64_t *)o->to);
        break;
    case OPTION_CHOICE:
        for (k = *(const int *)o->to; k > 0; k--)
            at += strcspn(at, "|") + 1;
        snprintf(text, bytes, "%.*s", (int)strcspn(at, "| "), at);
        break;
    default:
        snprintf(text, bytes, "%d", *(const int *)o->to);
        break;
    }
    return text;
}
