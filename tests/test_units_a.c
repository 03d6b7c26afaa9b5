/* test_units_a.c and test_units_b.c: one program of two units. Built twice:
   in the usual way, with the implementation in this unit alone, after
   declarations; and with UNITS_STATIC, where each unit
   has a static copy of its own. */
#ifdef UNITS_STATIC
#define SPLITMASK_STATIC
#endif
#include "splitmask.h"                   /* declarations ...               */
#include "splitmask.h"                   /* ... twice ...                  */
#define SPLITMASK_IMPLEMENTATION
#include "splitmask.h"                   /* ... then the implementation,   */
#include "splitmask.h"                   /* of which there is only one     */
#include "test.h"

/* Of test_units_b.c. */
smask_result units_setup(smask_ctx *c);
float units_step(smask_ctx *c, smask_tensor *w);
typedef smask_tensor *(*units_op)(smask_ctx *c, smask_tensor *x);
units_op units_gelu(void);
const char *units_version(void);

/* A context may be set up in one unit and used in the other: the sizes of
   the structs agree. */
static void contexts_pass_between_units(void)
{
    smask_ctx c;
    smask_tensor *w;
    float here, there;

    SAME(units_setup(&c), SMASK_OK);
    w = smask_parameter(&c, 3, 4, 0, 0);
    if (CHECK(w != NULL)) {
        size_t i;
        for (i = 0; i < 12; i++) w->x[i] = (float)i / 4 - 1;
        there = units_step(&c, w);
        smask_begin_step(&c);
        here = smask_mean_tokens(&c, smask_gather(&c, smask_gelu(&c, w), 1, 3,
            NULL, NULL, NULL), 0)->x[0];
        smask_end_step(&c);
        NEAR(here, there, 0);
    }
    SAME(smask_error(&c), SMASK_OK);
    smask_shutdown(&c);
}

static void copies(void)
{
    CHECK_TEXT(units_version(), SMASK_VERSION);
#ifdef UNITS_STATIC
    CHECK(units_gelu() != smask_gelu);   /* each unit has its own          */
#else
    CHECK(units_gelu() == smask_gelu);   /* one for all                    */
#endif
}

int main(void)
{
    RUN(contexts_pass_between_units);
    RUN(copies);
#ifdef UNITS_STATIC
    return DONE("test_units_static");
#else
    return DONE("test_units");
#endif
}
