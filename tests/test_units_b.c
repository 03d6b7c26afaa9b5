/* test_units_b.c: the other unit; see test_units_a.c. */
#ifdef UNITS_STATIC
#define SPLITMASK_STATIC
#define SPLITMASK_IMPLEMENTATION
#endif
#include "splitmask.h"
#include "splitmask.h"

typedef smask_tensor *(*units_op)(smask_ctx *c, smask_tensor *x);
smask_result units_setup(smask_ctx *c);
float units_step(smask_ctx *c, smask_tensor *w);
units_op units_gelu(void);
const char *units_version(void);

smask_result units_setup(smask_ctx *c)
{
    return smask_setup(c, NULL);
}

float units_step(smask_ctx *c, smask_tensor *w)
{
    smask_tensor *y;
    float first;

    smask_begin_step(c);
    y = smask_gather(c, smask_gelu(c, w), 1, w->shape[0], NULL, NULL, NULL);
    y = smask_mean_tokens(c, y, 0);
    first = y != NULL ? y->x[0] : -1;
    smask_end_step(c);
    return first;
}

units_op units_gelu(void)
{
    return smask_gelu;
}

const char *units_version(void)
{
    return SMASK_VERSION;
}
