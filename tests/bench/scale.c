/* scale.c: how the cost of a step grows. One size at a time is doubled from
   a small base; beside the time stands what the model's operations say. See
   bench.h. */
#include "bench.h"
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define SWEEPS 5
#define MAX_POINTS 5

typedef struct point { int value; double ms, mb, flops, gflops; } point;
typedef struct sweep {
    const char *name;
    int count, values[MAX_POINTS];
    point point[MAX_POINTS];
} sweep;

static void set_size(options *o, int what, int value)
{
    o->command = STEP;
    o->dim = 128;
    o->depth = 4;
    o->image = 32;
    o->patch = 4;
    o->batch = 32;
    o->vocab = 1024;
    switch (what) {
    case 0: o->batch = value; break;
    case 1: o->image = 4 * (int)floor(sqrt(value) + 0.5); break;
    case 2: o->dim = value; break;
    case 3: o->depth = value; break;
    case 4: o->vocab = value; break;
    }
    o->heads = o->dim / 32;
}

static point measure_point(bench *b, int what, int value)
{
    options o = b->o;
    smask_ctx c;
    smask_sizes sizes;
    model m;
    point p;

    set_size(&o, what, value);
    model_open(b, &c, &m, &o, &sizes);
    p.value = value;
    p.ms = 1e3 * model_seconds(b, &c, &m, o.steps) / o.batch;
    p.mb = (double)sizes.step_bytes / o.batch / 1e6;
    p.flops = model_cost_of(&o).flops;
    p.gflops = 1e-6 * p.flops / p.ms;
    model_close(&c, &m);
    return p;
}

/* ----------------------------------------------------------------- plot */

#define PANEL_W 180
#define PANEL_H 130

/* What a panel shows: the time, its law through the middle point, memory. */
enum { TIME, LAW, MEMORY };

static double shown(const sweep *s, int i, int what)
{
    const point *p = &s->point[i], *middle = &s->point[s->count / 2];

    if (what == LAW) return middle->ms * p->flops / middle->flops;
    return what == MEMORY ? p->mb : p->ms;
}

/* Logarithmic place of a value between two others. */
static double place(double value, double low, double high, double from,
    double to)
{
    return from + (to - from) * log(value / low) / log(high / low);
}

static double place_x(const sweep *s, int i)
{
    return place(s->values[i], s->values[0], s->values[s->count - 1], 15,
        PANEL_W - 15);
}

static void draw_line(FILE *f, const sweep *s, int what, double low,
    double high, const char *style)
{
    int i;

    fprintf(f, "<polyline fill=\"none\" %s points=\"", style);
    for (i = 0; i < s->count; i++)
        fprintf(f, "%.1f,%.1f ", place_x(s, i),
            place(shown(s, i, what), low, high, PANEL_H, 0));
    fprintf(f, "\"/>\n");
}

static void draw_panel(FILE *f, const sweep *s, int what, int left, int top)
{
    double low = HUGE_VAL, high = 0;
    int i, k;

    for (i = 0; i < s->count; i++)
        for (k = what; k <= (what == TIME ? LAW : what); k++) {
            low = fmin(low, shown(s, i, k) / 1.3);
            high = fmax(high, shown(s, i, k) * 1.3);
        }
    fprintf(f, "<g transform=\"translate(%d,%d)\">\n<rect width=\"%d\" "
        "height=\"%d\" fill=\"none\" stroke=\"#999\"/>\n"
        "<text x=\"0\" y=\"-6\">%s per image against %s</text>\n"
        "<text x=\"4\" y=\"12\" fill=\"#777\">%.3g %s</text>\n"
        "<text x=\"4\" y=\"%d\" fill=\"#777\">%.3g</text>\n", left, top,
        PANEL_W, PANEL_H, what == MEMORY ? "memory" : "time", s->name, high,
        what == MEMORY ? "MB" : "ms", PANEL_H - 4, low);
    if (what == TIME)
        draw_line(f, s, LAW, low, high,
            "stroke=\"#c60\" stroke-dasharray=\"4 3\"");
    draw_line(f, s, what, low, high, "stroke=\"#06c\"");
    for (i = 0; i < s->count; i++)
        fprintf(f, "<circle r=\"3\" fill=\"#06c\" cx=\"%.1f\" cy=\"%.1f\"/>"
            "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%d</text>\n",
            place_x(s, i), place(shown(s, i, what), low, high, PANEL_H, 0),
            place_x(s, i), PANEL_H + 14, s->values[i]);
    fprintf(f, "</g>\n");
}

static void draw(const sweep *s, const char *path)
{
    FILE *f;
    int i;

    folder_make("out");
    f = fopen(path, "w");
    if (f == NULL) fail("%s: cannot be written: %s", path, strerror(errno));
    fprintf(f, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"1080\" "
        "height=\"420\" font-family=\"sans-serif\" font-size=\"11\">\n"
        "<rect width=\"1080\" height=\"420\" fill=\"#fff\"/>\n"
        "<text x=\"20\" y=\"20\" font-size=\"13\">Cost of a training step. "
        "Blue: measured. Dashed: the model's operations, through the middle "
        "point. Both axes logarithmic.</text>\n");
    for (i = 0; i < SWEEPS; i++) {
        draw_panel(f, &s[i], TIME, 20 + 212 * i, 55);
        draw_panel(f, &s[i], MEMORY, 20 + 212 * i, 240);
    }
    fprintf(f, "</svg>\n");
    if (fclose(f) != 0)
        fail("%s: cannot be written: %s", path, strerror(errno));
    printf("# plot: %s\n", path);
}

void run_scale(bench *b)
{
    static sweep sweeps[SWEEPS] = {
        { "batch", 5, { 8, 16, 32, 64, 128 }, { { 0, 0, 0, 0, 0 } } },
        { "tokens", 4, { 16, 64, 144, 256 }, { { 0, 0, 0, 0, 0 } } },
        { "width", 4, { 64, 128, 256, 512 }, { { 0, 0, 0, 0, 0 } } },
        { "depth", 4, { 2, 4, 8, 16 }, { { 0, 0, 0, 0, 0 } } },
        { "vocabulary", 4, { 256, 1024, 4096, 8192 }, { { 0, 0, 0, 0, 0 } } }
    };
    int i, k;

    printf("# %s, base: 64 tokens, batch 32, width 128, depth 4, "
        "vocabulary 1024\n"
        "# sweep       value  ms/image  MB/image  GFLOP/image  GFLOP/s\n",
        method_names[b->o.method]);
    for (i = 0; i < SWEEPS; i++) {
        sweep *s = &sweeps[i];
        const point *first = s->point, *last = first + s->count - 1;

        for (k = 0; k < s->count; k++) {
            point *p = &s->point[k];

            *p = measure_point(b, i, s->values[k]);
            printf("# %-11s %6d %9.3f %9.3f %12.4f %8.1f\n", s->name,
                p->value, p->ms, p->mb, 1e-9 * p->flops, p->gflops);
            fflush(stdout);
        }
        /* 1: time grew as the operations did; less: better than that */
        figure_of("growth", s->name,
            last->ms / first->ms / (last->flops / first->flops));
        figure_of("memory_growth", s->name, last->mb / first->mb);
    }
    figure("peak_gflops", peak_median(b));
    draw(sweeps, "out/scale.svg");
}
