/* report.c: a pre-training run as one HTML file. See report.h. */
#include "report_parts.h"
#include "support.h"
#include <errno.h>
#include <string.h>

/* ---------------------------------------------------------------- page */

static void put_text(FILE *f, const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '&') fputs("&amp;", f);
        else if (*text == '<') fputs("&lt;", f);
        else if (*text == '>') fputs("&gt;", f);
        else if (*text == '"') fputs("&quot;", f);
        else fputc(*text, f);
    }
}

static const char head[] =
    "<meta charset=\"utf-8\">\n"
    "<meta name=\"viewport\" content=\"width=device-width,"
    " initial-scale=1\">\n"
    "<style>\n"
    ":root{color-scheme:light dark;--page:#fcfcfa;--text:#23262b;"
    "--quiet:#656b73;--rule:#e3e3dd;--curve:#2a6a9b;--mark:#b04a1f;"
    "--box:#f1f1ec}\n"
    "@media(prefers-color-scheme:dark){:root{--page:#15171a;"
    "--text:#dee1e5;--quiet:#989ea7;--rule:#2d3136;--curve:#7db3dc;"
    "--mark:#e39a72;--box:#1d2024}}\n"
    "*{box-sizing:border-box}\n"
    "body{margin:0 auto;padding:2.5rem 1.25rem 5rem;max-width:72rem;"
    "background:var(--page);color:var(--text);"
    "font:1rem/1.6 system-ui,-apple-system,\"Segoe UI\",sans-serif}\n"
    "h1{font-size:1.7rem;line-height:1.25;font-weight:600;margin:0}\n"
    "h2{font-size:1.2rem;font-weight:600;margin:3.5rem 0 .5rem}\n"
    "h3{font-size:.95rem;font-weight:600;margin:0 0 .35rem}\n"
    "p{max-width:43rem;margin:.6rem 0}\n"
    ".quiet,figcaption,dt{color:var(--quiet)}\n"
    "figure{margin:0;min-width:0}\n"
    "figcaption{font-size:.85rem;line-height:1.45;margin-top:.4rem}\n"
    ".numbers{display:flex;flex-wrap:wrap;gap:.9rem 2.4rem;"
    "margin:1.6rem 0 0}\n"
    ".numbers div{display:flex;flex-direction:column-reverse}\n"
    ".numbers dt{font-size:.8rem;line-height:1.3}\n"
    ".numbers dd{margin:0;font-size:1.35rem;line-height:1.3;"
    "font-variant-numeric:tabular-nums}\n"
    ".scene{display:grid;grid-template-columns:repeat(4,1fr);"
    "gap:.8rem .7rem;margin:1rem 0 1.9rem}\n"
    ".scene figcaption{font-size:.76rem;line-height:1.3}\n"
    "@media(min-width:56rem){.scene.wide{"
    "grid-template-columns:repeat(8,1fr)}"
    ".scene.half{grid-template-columns:repeat(5,1fr);max-width:42rem}}\n"
    "@media(max-width:30rem){.scene figcaption{font-size:.7rem}}\n"
    "svg{display:block;width:100%;height:auto}\n"
    ".scene svg{background:var(--box)}\n"
    "img,image{image-rendering:pixelated}\n"
    ".cut{fill:none;stroke:var(--mark);stroke-width:1.6;"
    "vector-effect:non-scaling-stroke}\n"
    ".plots{display:grid;gap:2.2rem 2.4rem;margin-top:1.2rem;"
    "grid-template-columns:repeat(auto-fill,minmax(min(21rem,100%),1fr))}\n"
    ".plots text,.wide-plot text{font-size:11px;fill:var(--quiet)}\n"
    ".wide-plot{max-width:30rem;margin-top:1.2rem}\n"
    ".rule{stroke:var(--rule)}\n"
    ".faint{fill:none;stroke:var(--curve);opacity:.3}\n"
    ".curve{fill:none;stroke:var(--curve);stroke-width:1.8;"
    "stroke-linejoin:round}\n"
    ".area{fill:var(--curve);opacity:.55}\n"
    ".noise{fill:none;stroke:var(--mark);stroke-width:1.8;"
    "stroke-dasharray:1 3}\n"
    ".mark{stroke:var(--mark);stroke-dasharray:4 3}\n"
    ".plots .name,.wide-plot .name{fill:var(--mark);paint-order:stroke;"
    "stroke:var(--page);stroke-width:4px}\n"
    ".tokens{display:grid;grid-template-columns:repeat(12,1fr);"
    "gap:.9rem .6rem;margin:1.2rem 0 .2rem}\n"
    "@media(max-width:48rem){.tokens{"
    "grid-template-columns:repeat(6,1fr)}}\n"
    ".tokens img{display:block;width:100%}\n"
    ".tokens figcaption{font-size:.72rem;margin-top:.2rem}\n"
    ".options{columns:4 14rem;column-gap:2.5rem;font-size:.85rem;"
    "margin:1rem 0}\n"
    ".options div{display:flex;justify-content:space-between;gap:1rem;"
    "border-bottom:1px solid var(--rule);padding:.15rem 0;"
    "break-inside:avoid}\n"
    ".options dt{white-space:nowrap}\n"
    ".options dd{margin:0;text-align:right;overflow-wrap:anywhere}\n"
    "pre{background:var(--box);padding:.8rem 1rem;font-size:.85rem;"
    "line-height:1.5;white-space:pre-wrap;overflow-wrap:anywhere;"
    "border-radius:4px}\n"
    "code{font-size:.92em}\n"
    "</style>\n";

/* ------------------------------------------------------------ the file */

static void put_list(FILE *f, const report_pair *pair, int32_t count)
{
    int32_t i;

    fprintf(f, "<dl class=\"options\">");
    for (i = 0; i < count; i++) {
        fprintf(f, "<div><dt>");
        put_text(f, pair[i].name);
        fprintf(f, "</dt><dd>");
        put_text(f, pair[i].value);
        fprintf(f, "</dd></div>\n");
    }
    fprintf(f, "</dl>\n");
}

static void put_page(FILE *f, const report *r, const report_canvas *v)
{
    int32_t i;

    fprintf(f, "<!doctype html>\n<html lang=\"en\">\n<title>");
    put_text(f, r->title);
    fprintf(f, "</title>\n%s<h1>", head);
    put_text(f, r->title);
    fprintf(f, "</h1>\n<p class=\"quiet\">Pre-training, %ld of %ld steps%s."
        "</p>\n<dl class=\"numbers\">\n", (long)r->done, (long)r->steps,
        r->done < r->steps ? " so far" : "");
    for (i = 0; i < r->results; i++) {
        fprintf(f, "<div><dt>");
        put_text(f, r->result[i].name);
        fprintf(f, "</dt><dd>");
        put_text(f, r->result[i].value);
        fprintf(f, "</dd></div>\n");
    }
    fprintf(f, "</dl>\n<p class=\"quiet\" style=\"font-size:.85rem\">Losses "
        "and accuracy are means over the last tenth of the steps made; "
        "<code>peak_mb</code> is the most memory that the program held, "
        "<code>planned_mb</code> what it asked for at its start, knowing "
        "beforehand what it needs.</p>\n");
    if (r->scenes != NULL && r->scenes->count > 0) report_pictures(f, r, v);
    if (r->rows > 0) report_plots(f, r);
    report_vocabulary(f, r, v);
    fprintf(f, "<h2>How to run it again</h2>\n<pre>");
    put_text(f, r->command);
    fprintf(f, "</pre>\n<p class=\"quiet\">The same command gives the same "
        "weights, bit for bit, with any number of threads on the same kind "
        "of processor. With <code>--resume</code> added it goes on from the "
        "last saved state. The options, with those that were not given:"
        "</p>\n");
    put_list(f, r->option, r->options);
    fprintf(f, "</html>\n");
}

int report_write(const report *r, const char *path)
{
    report_canvas v;
    FILE *f = NULL;
    int good = 0;

    memset(&v, 0, sizeof v);
    if (!report_canvas_open(&v, r)) errno = ENOMEM;
    else f = part_open(path);
    if (f != NULL) {
        put_page(f, r, &v);
        good = part_rename(f, path);
        if (!good) part_remove(path);
        fclose(f);
    }
    report_canvas_close(&v);
    return good;
}
