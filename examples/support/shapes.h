/* shapes.h: a data set that is drawn instead of downloaded.

   Ten forms. An image shows five to eight copies of one of them, light on
   darker ground. Number, place, size, angle, colours, textures, light and
   clutter are drawn alike for all classes, so that the form alone tells
   them apart; neighbours in plain pixels know little.

   Several small copies and not one large form, because what a vision
   transformer learns within minutes are things that lie within a few
   patches: of single forms even a supervised one learns next to nothing
   from 4000 images. Included by data.c alone.                            */
#ifndef SHAPES_H
#define SHAPES_H

#include "splitmask.h"
#include <math.h>

#define SHAPES_CLASSES 10
#define SHAPES_COPIES 8              /* of the form, at most               */
#define SHAPES_STROKES 3             /* of clutter, at most                */

static const char *const shapes_name[SHAPES_CLASSES] = { "disc", "ring",
    "square", "triangle", "star", "cross", "crescent", "heart", "arrow",
    "hourglass" };

/* ------------------------------------------------------------ geometry */

static double larger(double a, double b) { return a > b ? a : b; }
static double smaller(double a, double b) { return a < b ? a : b; }

/* Signed distance to a closed polygon of (x, y) pairs: the nearest edge,
   and whether a ray to the right crosses the outline an odd number of
   times. */
static double polygon(const double *point, int count, double x, double y)
{
    double nearest = 1e9;
    int i, inside = 0;

    for (i = 0; i < count; i++) {
        const double *a = point + 2 * i, *b = point + 2 * ((i + 1) % count);
        const double ex = b[0] - a[0], ey = b[1] - a[1];
        const double px = x - a[0], py = y - a[1];
        double t = (px * ex + py * ey) / (ex * ex + ey * ey);

        t = t < 0 ? 0 : t > 1 ? 1 : t;
        nearest = smaller(nearest, (px - t * ex) * (px - t * ex)
            + (py - t * ey) * (py - t * ey));
        if ((a[1] > y) != (b[1] > y) && px < ex * py / ey) inside = !inside;
    }
    return inside ? -sqrt(nearest) : sqrt(nearest);
}

static double circle(double x, double y, double radius)
{
    return sqrt(x * x + y * y) - radius;
}

/* The form in the unit disc: signed distance to its edge, negative inside,
   which is also what tells how much of an edge pixel it covers. */
static double form(int32_t which, double x, double y)
{
    static const double square[] = { .7, .7, -.7, .7, -.7, -.7, .7, -.7 };
    static const double triangle[] = { 0, 1, -.866, -.5, .866, -.5 };
    static const double star[] = { 0, 1, -.247, .34, -.951, .309, -.399,
        -.13, -.588, -.809, 0, -.42, .588, -.809, .399, -.13, .951, .309,
        .247, .34 };
    static const double cross[] = { .27, .95, -.27, .95, -.27, .27, -.95,
        .27, -.95, -.27, -.27, -.27, -.27, -.95, .27, -.95, .27, -.27, .95,
        -.27, .95, .27, .27, .27 };
    static const double diamond[] = { 0, .65, -.75, -.1, 0, -.85, .75,
        -.1 };
    static const double arrow[] = { 1, 0, .1, .75, .1, .27, -.95, .27, -.95,
        -.27, .1, -.27, .1, -.75 };
    static const double hourglass[] = { .68, .73, -.68, .73, -.1, 0, -.68,
        -.73, .68, -.73, .1, 0 };

    switch (which) {
    case 0: return circle(x, y, .85);
    case 1: return fabs(circle(x, y, .74)) - .22;
    case 2: return polygon(square, 4, x, y);
    case 3: return polygon(triangle, 3, x, y);
    case 4: return polygon(star, 10, x, y);
    case 5: return polygon(cross, 12, x, y);
    case 6: return larger(circle(x, y, .95), -circle(x - .5, y, .78));
    case 7: return smaller(polygon(diamond, 4, x, y), smaller(
        circle(x - .375, y - .275, .53), circle(x + .375, y - .275, .53)));
    case 8: return polygon(arrow, 7, x, y);
    default: return polygon(hourglass, 6, x, y);
    }
}

/* ------------------------------------------------------------ surfaces */

/* A surface: a colour and a pattern around it. */
typedef struct surface {
    double colour[3], swing[3];      /* at the pattern's 0; added at 1     */
    double co, si, waves, phase;
    uint32_t salt;
    int kind;
} surface;

static double draw(smask_random *random, double least, double most)
{
    return least + (most - least) * (double)smask_uniform(random);
}

/* Brightness `light` and a colour of a random hue at that brightness. */
static void draw_colour(smask_random *random, double light, double strength,
    double colour[3])
{
    const double hue = draw(random, 0, 6.283185307179586);
    const double much = draw(random, 0, strength);
    const double u = much * cos(hue), v = much * sin(hue);

    colour[0] = light + 0.956 * u + 0.621 * v;
    colour[1] = light - 0.272 * u - 0.647 * v;
    colour[2] = light - 1.106 * u + 1.703 * v;
}

static void draw_surface(smask_random *random, double light, double swing,
    surface *s)
{
    const double angle = draw(random, 0, 6.283185307179586);

    draw_colour(random, light, 0.07, s->colour);
    draw_colour(random, draw(random, 0, swing), 0.08, s->swing);
    s->co = cos(angle);
    s->si = sin(angle);
    s->waves = draw(random, 2.5, 7);
    s->phase = draw(random, 0, 6.283185307179586);
    s->salt = smask_next(random);
    /* Two of three are plain. */
    s->kind = (int)smask_below(random, 15);
    if (s->kind > 5) s->kind = 0;
}

/* A fixed random number -1 .. 1 for each point of a lattice. */
static double lattice(uint32_t salt, int x, int y)
{
    uint32_t h = salt ^ (uint32_t)x * 0x9e3779b1u ^ (uint32_t)y * 0x85ebca77u;

    h = (h ^ h >> 15) * 0x2c1b3c6du;
    h = (h ^ h >> 12) * 0x297a2d39u;
    return (double)(h ^ h >> 15) / 2147483648.0 - 1;
}

static double cloud(uint32_t salt, double x, double y)
{
    const int ix = (int)floor(x), iy = (int)floor(y);
    double fx = x - ix, fy = y - iy, top, bottom;

    fx *= fx * (3 - 2 * fx);
    fy *= fy * (3 - 2 * fy);
    top = lattice(salt, ix, iy)
        + fx * (lattice(salt, ix + 1, iy) - lattice(salt, ix, iy));
    bottom = lattice(salt, ix, iy + 1)
        + fx * (lattice(salt, ix + 1, iy + 1) - lattice(salt, ix, iy + 1));
    return top + fy * (bottom - top);
}

/* The pattern at a place of the unit square, -1 .. 1. */
static double pattern(const surface *s, double u, double v)
{
    const double x = s->co * u + s->si * v, y = s->co * v - s->si * u;
    const double turn = 6.283185307179586 * s->waves;
    double p;

    switch (s->kind) {
    case 0: return 0;
    case 1: return sin(turn * x + s->phase);
    case 2:
        p = 2 * sin(turn / 2 * x + s->phase) * sin(turn / 2 * y);
        return p > 1 ? 1 : p < -1 ? -1 : p;
    case 3:
        p = 2 * (cos(turn * x + s->phase) + cos(turn * y) - 0.8);
        return p > 1 ? 1 : p < -1 ? -1 : p;
    case 4: return cloud(s->salt, s->waves * x, s->waves * y);
    default: return smaller(larger(1.4 * x, -1), 1);
    }
}

/* A soft stroke on the ground. */
typedef struct stroke {
    double x, y, dx, dy, width, colour[3];
} stroke;

/* How much of a place the stroke covers, 0 .. 1. */
static double cover(const stroke *s, double u, double v)
{
    const double px = u - s->x, py = v - s->y;
    const double across = px * s->dy - py * s->dx;
    const double length = s->dx * s->dx + s->dy * s->dy;
    double t, d;

    if (across * across >= s->width * s->width * length) return 0;
    t = (px * s->dx + py * s->dy) / length;
    t = t < 0 ? 0 : t > 1 ? 1 : t;
    d = ((px - t * s->dx) * (px - t * s->dx)
        + (py - t * s->dy) * (py - t * s->dy)) / (s->width * s->width);
    return d < 1 ? (1 - d) * (1 - d) : 0;
}

/* -------------------------------------------------------------- scenes */

/* A copy of the form: middle, radius of the disc around it and angle, in
   parts of the side. */
typedef struct copy {
    double x, y, radius, co, si;
} copy;

/* All that is drawn before the first pixel. */
typedef struct scene {
    surface ground, shape;
    copy copies[SHAPES_COPIES];
    stroke clutter[SHAPES_STROKES];
    double light_x, light_y, noise;
    int32_t which, count, strokes;
} scene;

/* Copies that hardly touch, as many of 5 .. 8 as find a place. */
static void place_copies(smask_random *random, scene *s)
{
    const int32_t wanted = 5 + (int32_t)smask_below(random,
        SHAPES_COPIES - 4);
    int32_t tries, k;

    s->count = 0;
    for (tries = 0; tries < 200 && s->count < wanted; tries++) {
        const double angle = draw(random, 0, 6.283185307179586);
        copy *one = &s->copies[s->count];

        one->radius = draw(random, 0.22, 0.31) / 2;
        one->x = draw(random, one->radius, 1 - one->radius);
        one->y = draw(random, one->radius, 1 - one->radius);
        one->co = cos(angle);
        one->si = sin(angle);
        for (k = 0; k < s->count; k++) {
            const double x = one->x - s->copies[k].x;
            const double y = one->y - s->copies[k].y;
            const double least = 0.95 * (one->radius + s->copies[k].radius);
            if (x * x + y * y < least * least) break;
        }
        if (k == s->count) s->count++;
    }
}

static void draw_scene(smask_random *random, int32_t which, scene *s)
{
    const double contrast = draw(random, 0.33, 0.5);
    const double ground = draw(random, 0.2, 0.4);
    int32_t i;

    s->which = which;
    place_copies(random, s);
    draw_surface(random, ground, 0.33 * contrast, &s->ground);
    draw_surface(random, ground + contrast, 0.4 * contrast, &s->shape);
    s->light_x = draw(random, -0.15, 0.15);
    s->light_y = draw(random, -0.15, 0.15);
    s->noise = draw(random, 0.005, 0.03);
    s->strokes = (int32_t)smask_below(random, SHAPES_STROKES + 1);
    for (i = 0; i < s->strokes; i++) {
        stroke *k = &s->clutter[i];
        const double sign = smask_below(random, 2) ? 1 : -1;
        k->x = draw(random, 0, 1);
        k->y = draw(random, 0, 1);
        k->dx = draw(random, -0.5, 0.5);
        k->dy = draw(random, -0.5, 0.5) + 1e-3;
        k->width = draw(random, 0.03, 0.12);
        draw_colour(random, sign * draw(random, 0.15, 0.4) * contrast, 0.08,
            k->colour);
    }
}

/* How much of a pixel the copies cover, 0 .. 1. */
static double covered(const scene *s, double u, double v, double pixel)
{
    double most = 0;
    int32_t k;

    for (k = 0; k < s->count; k++) {
        const copy *one = &s->copies[k];
        const double x = (u - one->x) / one->radius;
        const double y = (v - one->y) / one->radius;
        double d;

        if (x * x + y * y > 1.3) continue;
        d = form(s->which, one->co * x + one->si * y,
            one->co * y - one->si * x) * one->radius / pixel;
        most = larger(most, smaller(1, 0.5 - d));
    }
    return most;
}

/* The colour of the scene at one place; `pixel` is its size. */
static void shade(const scene *s, double u, double v, double pixel,
    double colour[3])
{
    const double light = 1 + s->light_x * (2 * u - 1)
        + s->light_y * (2 * v - 1);
    const double inside = covered(s, u, v, pixel);
    double p;
    int32_t i, c;

    colour[0] = colour[1] = colour[2] = 0;
    if (inside < 1) {
        p = pattern(&s->ground, u, v);
        for (c = 0; c < 3; c++)
            colour[c] = s->ground.colour[c] + p * s->ground.swing[c];
        for (i = 0; i < s->strokes; i++) {
            const double much = cover(&s->clutter[i], u, v);
            for (c = 0; c < 3; c++)
                colour[c] += much * s->clutter[i].colour[c];
        }
    }
    if (inside > 0) {
        p = pattern(&s->shape, u, v);
        for (c = 0; c < 3; c++)
            colour[c] += inside * (s->shape.colour[c]
                + p * s->shape.swing[c] - colour[c]);
    }
    for (c = 0; c < 3; c++) colour[c] *= light;
}

/* Paint one picture of class `which`: (channels, side, side), channels 1 or
   3, 0 .. 255. */
static void shapes_paint(smask_random *random, int32_t which, int32_t side,
    int32_t channels, uint8_t *out)
{
    const size_t plane = (size_t)side * (size_t)side;
    double colour[3];
    int32_t x, y, c;
    size_t i = 0;
    scene s;

    draw_scene(random, which, &s);
    for (y = 0; y < side; y++)
        for (x = 0; x < side; x++, i++) {
            const uint32_t bits = smask_next(random);
            double grey;

            shade(&s, (x + 0.5) / side, (y + 0.5) / side, 1.0 / side,
                colour);
            for (c = 0; c < 3; c++) {
                /* The sum of two even draws, -1 .. 1. */
                const double grain = (double)((bits >> 10 * c & 31)
                    + (bits >> (10 * c + 5) & 31)) / 31 - 1;
                colour[c] = 255 * larger(0, smaller(1, colour[c]
                    + 2 * s.noise * grain));
            }
            grey = 0.299 * colour[0] + 0.587 * colour[1]
                + 0.114 * colour[2];
            if (channels == 1) out[i] = (uint8_t)(grey + 0.5);
            else
                for (c = 0; c < 3; c++)
                    out[(size_t)c * plane + i] = (uint8_t)(colour[c] + 0.5);
        }
}

#endif /* SHAPES_H */
