/* test.h: what a test program needs, in C99 and C++11.

     static void adds(void) { CHECK(1 + 1 == 2); NEAR(0.1 + 0.2, 0.3, 1e-9); }
     int main(void) { RUN(adds); return DONE("test_sums"); }

   The unit that is counted is the test function: it passes when all checks
   in it hold. A check that fails is printed with file, line and values; the
   function goes on. DONE prints `NAME: N passed, N failed` and gives the
   exit code: the number of functions that failed, at most 100; a program that
   ran no function fails. */
#ifndef SPLITMASK_TEST_H
#define SPLITMASK_TEST_H

#include <stdio.h>
#include <string.h>

/* Failures printed for one test function; the rest are only counted. */
#define TEST_SHOWN 8

static int test_passed, test_failed;     /* functions                      */
static int test_wrong;                   /* checks in the running function */
static const char *test_name = "main";

/* One failed check: file:line, and whether to print its details. */
static inline int test_fails(const char *file, int line)
{
    test_wrong++;
    if (test_wrong > TEST_SHOWN) return 0;
    printf("%s:%d: %s: ", file, line, test_name);
    return 1;
}

static inline int test_check(int good, const char *what, const char *file,
    int line)
{
    if (!good && test_fails(file, line)) printf("%s does not hold\n", what);
    return good;
}

/* A NaN on either side fails, and so does an infinity on one side. By
   comparison alone, since -ffast-math may remove isnan: the condition that
   holds is asked for, not the one that does not. */
static inline int test_near(double a, double b, double tolerance,
    const char *what, const char *file, int line)
{
    const double d = a > b ? a - b : b - a;
    const int good = a == b || (d <= tolerance && d <= 1e300);

    if (!good && test_fails(file, line))
        printf("%s: %.9g and %.9g differ by %.3g > %.3g\n", what, a, b, d,
            tolerance);
    return good;
}

static inline int test_same_text(const char *a, const char *b,
    const char *file, int line)
{
    const int good = a != NULL && b != NULL && strcmp(a, b) == 0;

    if (!good && test_fails(file, line))
        printf("\"%s\" is not \"%s\"\n", a != NULL ? a : "(null)",
            b != NULL ? b : "(null)");
    return good;
}

static inline int test_same_number(long a, long b, const char *what,
    const char *file, int line)
{
    if (a != b && test_fails(file, line))
        printf("%s: %ld is not %ld\n", what, a, b);
    return a == b;
}

static inline void test_run(void (*fn)(void), const char *name)
{
    test_name = name;
    test_wrong = 0;
    fn();
    if (test_wrong > TEST_SHOWN)
        printf("%s: %d checks failed in all\n", name, test_wrong);
    if (test_wrong == 0) test_passed++;
    else test_failed++;
    test_name = "main";
    test_wrong = 0;
    fflush(stdout);
}

static inline int test_done(const char *name)
{
    if (test_wrong > 0) test_failed++;   /* checks outside of RUN          */
    printf("%s: %d passed, %d failed\n", name, test_passed, test_failed);
    if (test_passed == 0 && test_failed == 0) return 1;
    return test_failed < 100 ? test_failed : 100;
}

/* All of these have a value: 1 when the check holds. */
#define CHECK(cond) test_check((cond) ? 1 : 0, #cond, __FILE__, __LINE__)
/* |a - b| <= tol; a and b of any real type. */
#define NEAR(a, b, tol) test_near((double)(a), (double)(b), (double)(tol),  \
    #a, __FILE__, __LINE__)
/* Two texts, the same to the last byte. */
#define CHECK_TEXT(a, b) test_same_text(a, b, __FILE__, __LINE__)
/* Two whole numbers (a result code, a count), shown when they differ. */
#define SAME(a, b) test_same_number((long)(a), (long)(b), #a, __FILE__,     \
    __LINE__)
#define RUN(fn) test_run(fn, #fn)
#define DONE(name) test_done(name)

#endif /* SPLITMASK_TEST_H */
