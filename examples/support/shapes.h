/* shapes.h: a data set that is drawn instead of downloaded.

   Ten forms. An image shows up to thirteen copies of one of them, light on
   a dark, grainy ground. Every copy has a place, a size and an angle of its
   own, drawn alike for all classes, and all forms cover the same area: the
   form alone tells the classes apart, and neighbours in plain pixels know
   little.

   Many small copies and not one large form, because what a vision
   transformer learns within minutes are things that lie within a few
   patches. The same greys in all images, because the form is then what the
   halves of an image have in common. A tint of the ground, clouds that
   reach from one half into the other, or a colour for each copy (some are
   cut by the border of the halves) are easier to see, and the match then
   makes do with them. Included by data.c alone.                          */
#ifndef SHAPES_H
#define SHAPES_H

#include "splitmask.h"
#include <math.h>

#define SHAPES_CLASSES 10
#define SHAPES_FEWEST 7              /* copies of the form                 */
#define SHAPES_COPIES 13             /* and most                           */
#define SHAPES_GROUND 0.33           /* how light, of 1                    */
#define SHAPES_LIGHT 0.73            /* the forms                          */
#define SHAPES_TURN 6.283185307179586

static const char *const shapes_name[SHAPES_CLASSES] = { "disc", "ring",
    "square", "triangle", "star", "cross", "crescent", "heart", "arrow",
    "hourglass" };

/* The square root of 1.3 by the area of form() below: enlarged by this, all
   forms cover the same, and brightness tells nothing. */
static const double shapes_scale[SHAPES_CLASSES] = { .757, .797, .814, 1,
    1.026, .859, .975, .805, 1.023, 1.068 };

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

/* -------------------------------------------------------------- scenes */

/* A copy of the form: middle, radius of the disc around it, in parts of the
   side; angle. */
typedef struct copy {
    double x, y, radius, co, si;
} copy;

/* All that is drawn before the first pixel. */
typedef struct scene {
    copy copies[SHAPES_COPIES];
    int32_t which, count;
} scene;

static double draw(smask_random *random, double least, double most)
{
    return least + (most - least) * (double)smask_uniform(random);
}

/* All but the place: size and angle. */
static void draw_copy(smask_random *random, copy *one)
{
    const double angle = draw(random, 0, SHAPES_TURN);

    one->radius = draw(random, 0.11, 0.16);
    one->co = cos(angle);
    one->si = sin(angle);
}

/* Copies that hardly touch, as many of those wanted as find a place. */
static void draw_scene(smask_random *random, int32_t which, scene *s)
{
    const int32_t wanted = SHAPES_FEWEST + (int32_t)smask_below(random,
        SHAPES_COPIES - SHAPES_FEWEST + 1);
    int32_t tries, k;

    s->which = which;
    s->count = 0;
    for (tries = 0; tries < 400 && s->count < wanted; tries++) {
        copy *one = &s->copies[s->count];
        double edge;

        draw_copy(random, one);
        edge = 0.8 * one->radius;
        one->x = draw(random, edge, 1 - edge);
        one->y = draw(random, edge, 1 - edge);
        for (k = 0; k < s->count; k++) {
            const double x = one->x - s->copies[k].x;
            const double y = one->y - s->copies[k].y;
            const double least = 0.95 * (one->radius + s->copies[k].radius);
            if (x * x + y * y < least * least) break;
        }
        if (k == s->count) s->count++;
    }
}

/* How light the scene is at one place, 0 .. 1; `pixel` is its size. */
static double shade(const scene *s, double u, double v, double pixel)
{
    double light = SHAPES_GROUND;
    int32_t k;

    for (k = 0; k < s->count; k++) {
        const copy *one = &s->copies[k];
        const double radius = one->radius * shapes_scale[s->which];
        const double x = (u - one->x) / radius, y = (v - one->y) / radius;
        double inside;

        if (x * x + y * y > 2.5) continue;
        /* How much of the pixel the copy covers. */
        inside = 0.5 - form(s->which, one->co * x + one->si * y,
            one->co * y - one->si * x) * radius / pixel;
        inside = larger(0, smaller(1, inside));
        light += inside * (SHAPES_LIGHT - light);
    }
    return light;
}

/* Paint one picture of class `which`: (channels, side, side), channels 1 or
   3, 0 .. 255. */
static void shapes_paint(smask_random *random, int32_t which, int32_t side,
    int32_t channels, uint8_t *out)
{
    const size_t plane = (size_t)side * (size_t)side;
    int32_t x, y, c;
    size_t i = 0;
    scene s;

    draw_scene(random, which, &s);
    for (y = 0; y < side; y++)
        for (x = 0; x < side; x++, i++) {
            const uint32_t bits = smask_next(random);
            const double light = shade(&s, (x + 0.5) / side,
                (y + 0.5) / side, 1.0 / side);
            for (c = 0; c < channels; c++) {
                /* The sum of two even draws, -1 .. 1. */
                const double grain = (double)((bits >> 10 * c & 31)
                    + (bits >> (10 * c + 5) & 31)) / 31 - 1;
                out[(size_t)c * plane + i] = (uint8_t)(255 * larger(0,
                    smaller(1, light + 0.03 * grain)) + 0.5);
            }
        }
}

#endif /* SHAPES_H */
