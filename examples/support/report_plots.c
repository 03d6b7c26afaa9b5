/* report_plots.c: the curves of a report as SVG. */
#include "report_parts.h"
#include <math.h>
#include <string.h>

/* --------------------------------------------------------------- plots */

#define PLOT_WIDTH 400.0
#define PLOT_HEIGHT 230.0
#define PLOT_LEFT 46.0
#define PLOT_RIGHT 10.0
#define PLOT_TOP 22.0
#define PLOT_BOTTOM 36.0
#define BINS 320

typedef struct axis { double low, high, tick; } axis;

/* 1, 2 or 5 times a power of ten, `count` of which cover the span. */
static double nice_tick(double span, int count)
{
    const double rough = span > 0 ? span / count : 1;
    const double power = pow(10, floor(log10(rough)));
    const double digit = rough / power;

    return power * (digit < 1.5 ? 1 : digit < 3.5 ? 2 : digit < 7.5 ? 5
        : 10);
}

/* An axis with whole ticks that holds low .. high. */
static axis nice_axis(double low, double high)
{
    axis a;

    if (!(high > low)) high = low + (low != 0 ? fabs(low) * 0.1 : 1);
    a.tick = nice_tick(high - low, 4);
    a.low = a.tick * floor(low / a.tick + 1e-9);
    a.high = a.tick * ceil(high / a.tick - 1e-9);
    return a;
}

static double plot_x(const axis *a, double x)
{
    return PLOT_LEFT + (x - a->low) / (a->high - a->low)
        * (PLOT_WIDTH - PLOT_LEFT - PLOT_RIGHT);
}

static double plot_y(const axis *a, double y)
{
    return PLOT_HEIGHT - PLOT_BOTTOM - (y - a->low) / (a->high - a->low)
        * (PLOT_HEIGHT - PLOT_TOP - PLOT_BOTTOM);
}

static void put_number(FILE *f, double x)
{
    if (x != 0 && fabs(x) < 1e-5) fprintf(f, "%.0e", x);
    else fprintf(f, "%.6g", x);
}

static void put_x_axis(FILE *f, const axis *x, const char *unit)
{
    double at;

    for (at = x->tick * ceil(x->low / x->tick); at <= x->high * (1 + 1e-9);
         at += x->tick) {
        const double w = plot_x(x, at);
        fprintf(f, "<line class=\"rule\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%g\" "
            "y2=\"%g\"/>", w, w, PLOT_HEIGHT - PLOT_BOTTOM,
            PLOT_HEIGHT - PLOT_BOTTOM + 4);
        fprintf(f, "<text x=\"%.1f\" y=\"%g\" text-anchor=\"%s\">", w,
            PLOT_HEIGHT - PLOT_BOTTOM + 16,
            w > PLOT_WIDTH - 24 ? "end" : "middle");
        put_number(f, at);
        fprintf(f, "</text>");
    }
    fprintf(f, "<text x=\"%g\" y=\"%g\" text-anchor=\"end\">%s</text>\n",
        PLOT_WIDTH - PLOT_RIGHT, PLOT_HEIGHT - 5, unit);
}

/* power: 1: the axis counts powers of ten. */
static void put_y_axis(FILE *f, const axis *y, const char *unit, int power)
{
    double at;

    for (at = y->low; at <= y->high + y->tick / 2; at += y->tick) {
        const double h = plot_y(y, at);
        fprintf(f, "<line class=\"rule\" x1=\"%g\" x2=\"%g\" y1=\"%.1f\" "
            "y2=\"%.1f\"/>", PLOT_LEFT, PLOT_WIDTH - PLOT_RIGHT, h, h);
        fprintf(f, "<text x=\"%g\" y=\"%.1f\" text-anchor=\"end\">",
            PLOT_LEFT - 6, h + 4);
        put_number(f, power ? pow(10, at)
            : fabs(at) < y->tick * 1e-6 ? 0 : at);
        fprintf(f, "</text>");
    }
    fprintf(f, "<text x=\"%g\" y=\"10\" text-anchor=\"%s\">%s</text>\n",
        strlen(unit) > 6 ? 4 : PLOT_LEFT - 6,
        strlen(unit) > 6 ? "start" : "end", unit);
}

static void put_mark(FILE *f, const axis *y, double at, const char *name)
{
    const double h = plot_y(y, at);

    fprintf(f, "<line class=\"mark\" x1=\"%g\" x2=\"%g\" y1=\"%.1f\" "
        "y2=\"%.1f\"/><text class=\"name\" x=\"%g\" y=\"%.1f\" "
        "text-anchor=\"end\">%s</text>\n", PLOT_LEFT,
        PLOT_WIDTH - PLOT_RIGHT, h, h, PLOT_WIDTH - PLOT_RIGHT - 2, h - 5,
        name);
}

enum { TOTAL, INPAINT, MATCH, ACCURACY, FOUND, RATE };

static double value_of(const report_step *row, int what)
{
    switch (what) {
    case INPAINT: return row->inpaint;
    case MATCH: return row->match;
    case ACCURACY: return 100 * row->accuracy;
    case FOUND: return 100 * row->match_accuracy;
    case RATE: return row->lr;
    default: return row->loss;
    }
}

static void put_curve(FILE *f, const char *kind, const axis *x,
    const axis *y, const double *at, const double *value, int count)
{
    int i;

    fprintf(f, "<polyline class=\"%s\" points=\"", kind);
    for (i = 0; i < count; i++)
        fprintf(f, "%s%.1f,%.1f", i > 0 ? " " : "", plot_x(x, at[i]),
            plot_y(y, value[i]));
    fprintf(f, "\"/>\n");
}

/* One quantity over the steps: faint as it was, full over a window of a
   twentieth of the run. A mark is a level to compare with; NULL: none. */
static void put_plot(FILE *f, const report *r, int what, const char *title,
    const char *unit, double mark, const char *mark_name)
{
    double at[BINS], value[BINS] = { 0 }, smooth[BINS], noise[BINS];
    double low, high;
    const int count = r->rows < BINS ? (int)r->rows : BINS;
    const int reach = count / 40;
    axis x, y;
    int i, k, known = 0;             /* bins with a measure on noise       */

    for (i = 0; i < count; i++) {
        const size_t begin = (size_t)i * r->rows / (size_t)count;
        const size_t end = (size_t)(i + 1) * r->rows / (size_t)count;
        size_t j;
        at[i] = value[i] = 0;
        for (j = begin; j < end; j++) {
            at[i] += (double)r->row[j].step / (double)(end - begin);
            value[i] += value_of(&r->row[j], what) / (double)(end - begin);
        }
    }
    for (i = 0; i < count; i++) {
        const int begin = i < reach ? 0 : i - reach;
        const int end = i + reach >= count ? count - 1 : i + reach;
        smooth[i] = 0;
        for (k = begin; k <= end; k++)
            smooth[i] += value[k] / (end - begin + 1);
    }
    low = high = value[0];
    for (i = 1; i < count; i++) {
        if (value[i] < low) low = value[i];
        if (value[i] > high) high = value[i];
    }
    for (i = 0; i < count && what == FOUND; i++) {
        noise[i] = 100 * r->row[(size_t)(i + 1) * r->rows / (size_t)count
            - 1].noise;
        if (noise[i] > high) high = noise[i];
        known += isnan(noise[i]) ? 0 : 1;
    }
    if (mark_name != NULL && mark < low) low = mark;
    if (mark_name != NULL && mark > high) high = mark;
    if (what >= ACCURACY) low = 0;
    y = nice_axis(low, high);
    x.low = 0;
    x.high = r->steps > 0 ? (double)r->steps : 1;
    x.tick = nice_tick(x.high, 4);
    fprintf(f, "<figure><h3>%s</h3><svg viewBox=\"0 0 %g %g\" role=\"img\" "
        "aria-label=\"%s over the steps\">\n", title, PLOT_WIDTH,
        PLOT_HEIGHT, title);
    put_x_axis(f, &x, "step");
    put_y_axis(f, &y, unit, 0);
    put_curve(f, "faint", &x, &y, at, value, count);
    put_curve(f, "curve", &x, &y, at, smooth, count);
    if (known > 0)
        put_curve(f, "noise", &x, &y, at + count - known,
            noise + count - known, known);
    if (mark_name != NULL) put_mark(f, &y, mark, mark_name);
    fprintf(f, "</svg><figcaption>");
}

void report_plots(FILE *f, const report *r)
{
    const double chance = 100 * r->chance;
    int32_t id, commonest = 0;

    for (id = 0; id < r->tokens->tokenizer->desc.vocabulary; id++)
        if (r->tokens->count[id] > commonest) commonest = r->tokens->count[id];
    fprintf(f, "<h2>How training went</h2>\n<p class=\"quiet\">One step is "
        "one update of the weights, on %d images. The faint line is what "
        "the steps saw, the full line their running mean over a twentieth "
        "of the run. Losses are in nats: a loss of x means that the right "
        "answer got, typically, the probability e<sup>&minus;x</sup>.</p>\n"
        "<div class=\"plots\">\n", (int)r->batch);
    if (!r->no_inpaint) {
        put_plot(f, r, INPAINT, r->beit ? "Prediction loss"
            : "Inpainting loss", "nats", r->tokens->use.entropy,
            "a model that ignores context reaches this loss");
        fprintf(f, "How badly the hidden tokens are predicted. The dashed "
            "line is the entropy of the tokens, H(t)&nbsp;=&nbsp;%.3f: what "
            "one gets by guessing every token as often as it occurs. All "
            "that lies below the line was learnt from context.</figcaption>"
            "</figure>\n", r->tokens->use.entropy);
        put_plot(f, r, ACCURACY, "Visual tokens predicted right", "%",
            100.0 * commonest / (double)r->tokens->patches,
            "always naming the commonest token");
        fprintf(f, "The share of hidden patches whose most likely token is "
            "the right one, out of %d tokens. Close misses count as misses."
            "</figcaption></figure>\n",
            (int)r->tokens->tokenizer->desc.vocabulary);
    }
    if (!r->beit && !r->no_match && r->batch > 1) {
        put_plot(f, r, MATCH, "Matching loss", "nats",
            log((double)r->batch), "cannot tell images apart: ln(B)");
        fprintf(f, "Each half has to recognise its other half among the "
            "%d of the batch. Blind guessing costs ln(B)&nbsp;=&nbsp;%.3f, "
            "the dashed line.</figcaption></figure>\n", (int)r->batch,
            log((double)r->batch));
        put_plot(f, r, FOUND, "Halves matched right", "%", chance,
            "by chance");
        fprintf(f, "How often the true other half ranks first.");
        if (!isnan(r->noise))
            fprintf(f, " The dotted line is the same on images of pure "
                "noise, whose halves share nothing: %.1f&nbsp;%% are "
                "recognised by the split alone, chance is %.1f&nbsp;%%. If "
                "it lies well above chance, the match reads how images are "
                "split, not what they show; with <code>--splits 1</code> it "
                "cannot.",
                100 * r->noise, chance);
        fprintf(f, "</figcaption></figure>\n");
    }
    put_plot(f, r, TOTAL, "Loss that is descended", "nats", 0, NULL);
    fprintf(f, "The weighted sum of the parts.</figcaption></figure>\n");
    put_plot(f, r, RATE, "Learning rate", "", 0, NULL);
    fprintf(f, "Rises during the warm-up, then falls along a cosine."
        "</figcaption></figure>\n</div>\n");
}

/* Shares of the tokens, the commonest first, on a scale of powers of ten. */
void report_ranks(FILE *f, const report *r, const int32_t *const *rank)
{
    const report_tokens *w = r->tokens;
    const int32_t V = w->tokenizer->desc.vocabulary, used = w->use.used;
    const int32_t points = used < 500 ? used : 500;
    const double all = (double)w->patches;
    double floor_at;
    axis x, y;
    int32_t i;

    y.low = floor(log10(100.0 * *rank[used - 1] / all) + 1e-9);
    y.high = ceil(log10(100.0 * *rank[0] / all) - 1e-9);
    if (log10(100.0 / V) < y.low) y.low = floor(log10(100.0 / V));
    if (!(y.high > y.low)) y.high = y.low + 1;
    y.tick = 1;
    x.low = 1;
    x.high = V > 1 ? V : 2;
    x.tick = nice_tick(x.high, 6);
    floor_at = plot_y(&y, y.low);
    fprintf(f, "<figure class=\"wide-plot\"><svg "
        "viewBox=\"0 0 %g %g\" role=\"img\" aria-label=\"share of each token, "
        "the commonest first\">\n", PLOT_WIDTH, PLOT_HEIGHT);
    put_x_axis(f, &x, "token, the commonest first");
    put_y_axis(f, &y, "% of patches", 1);
    fprintf(f, "<path class=\"area\" d=\"M%.1f %.1f", plot_x(&x, 1),
        floor_at);
    for (i = 0; i < points; i++) {
        const int32_t at = points < 2 ? 0 : (int32_t)((int64_t)i
            * (used - 1) / (points - 1));
        fprintf(f, "L%.1f %.1f", plot_x(&x, at + 1),
            plot_y(&y, log10(100.0 * *rank[at] / all)));
    }
    fprintf(f, "L%.1f %.1fZ\"/>\n", plot_x(&x, used), floor_at);
    put_mark(f, &y, log10(100.0 / V), "if all tokens were used alike");
    fprintf(f, "</svg><figcaption>How often each token occurs, in %ld "
        "patches of augmented training images. The scale goes in powers of "
        "ten.</figcaption></figure>\n", (long)w->patches);
}

