// The policy `{{name}}`: nodes in a preferred rack lead; in the same rack whoever leads already.
//
// Every call runs in a fresh instance: nothing is remembered, and nothing needs to be freed.
// `leadership_policy.h` is made of the interface in `wit/`, which explains every word of it.

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "leadership_policy.h"

typedef leadership_policy_string_t text;

static const char SCHEMA[] =
{{schema-in-c}};

// At most so many racks can be told apart.
enum { MOST_RACKS = 64 };

typedef struct {
    text racks[MOST_RACKS];
    size_t count;
} settings;

static bool equal(text a, text b) {
    return a.len == b.len && memcmp(a.ptr, b.ptr, a.len) == 0;
}

static bool starts(text in, size_t at, const char *with) {
    size_t length = strlen(with);
    return in.len - at >= length && memcmp(in.ptr + at, with, length) == 0;
}

// What is wrong with the settings, and where: which field, and which of its items unless that is -1.
typedef struct {
    const char *message; // NULL if nothing is wrong
    text field;
    int item;
} problem;

static const text RACKS = {(uint8_t *)"racks", 5};

// The name of the field that begins here with its quote, as far as a policy without a reader for JSON
// can tell.
static problem unknown_field(text config, size_t at) {
    size_t from = at + 1, to = from;
    while (to < config.len && config.ptr[to] != '"') to++;
    if (to >= config.len) return (problem){"the only setting is `racks`, a list of names", RACKS, -1};
    return (problem){"unknown field, expected `racks`", {config.ptr + from, to - from}, -1};
}

// Reads `{"racks":["r1","r2"]}`, which is how the host passes it on: without spaces.
static problem parse(text config, settings *out) {
    const problem fine = {NULL, RACKS, -1};
    out->count = 0;
    if (config.len == 2) return fine; // {}
    if (!starts(config, 0, "{\"racks\":")) return unknown_field(config, 1);
    size_t at = strlen("{\"racks\":[");
    if (!starts(config, at - 1, "[")) return (problem){"a list of names is expected", RACKS, -1};
    while (at < config.len && config.ptr[at] == '"') {
        const int item = (int)out->count;
        size_t from = ++at;
        while (at < config.len && config.ptr[at] != '"') {
            if (config.ptr[at++] == '\\')
                return (problem){"the name of a rack has a character that this policy cannot read", RACKS, item};
        }
        if (at == from) return (problem){"the name of a rack is missing", RACKS, item};
        if (out->count == MOST_RACKS)
            return (problem){"there are more racks than this policy can tell apart", RACKS, item};
        out->racks[out->count++] = (text){config.ptr + from, at - from};
        at++;
        if (at < config.len && config.ptr[at] == ',') at++;
    }
    if (!starts(config, at, "]")) return (problem){"the name of a rack is missing", RACKS, (int)out->count};
    return starts(config, at + 1, ",") ? unknown_field(config, at + 2) : fine;
}

// Writes a number below a hundred; returns how many digits it has.
static size_t digits(char *out, size_t number) {
    size_t count = 0;
    if (number >= 10) out[count++] = (char)('0' + number / 10);
    out[count++] = (char)('0' + number % 10);
    return count;
}

void exports_conclave_policy_about_introduce(exports_conclave_policy_about_info_t *out) {
    leadership_policy_string_dup(&out->name, "{{name}}");
    leadership_policy_string_dup(&out->version, "0.1.0");
    leadership_policy_string_dup(&out->summary, "Nodes in a preferred rack lead.");
    leadership_policy_string_dup(&out->config_schema, SCHEMA);
}

void exports_conclave_policy_about_validate(text *config, exports_conclave_policy_about_list_problem_t *out) {
    settings settings;
    problem wrong = parse(*config, &settings);
    *out = (exports_conclave_policy_about_list_problem_t){NULL, 0};
    if (wrong.message == NULL) return;
    // A JSON pointer, such as /racks/1.
    char *path = malloc(wrong.field.len + 4);
    size_t length = 0;
    path[length++] = '/';
    memcpy(path + length, wrong.field.ptr, wrong.field.len);
    length += wrong.field.len;
    if (wrong.item >= 0) {
        path[length++] = '/';
        length += digits(path + length, (size_t)wrong.item);
    }
    out->ptr = malloc(sizeof *out->ptr);
    out->len = 1;
    leadership_policy_string_dup_n(&out->ptr->path, path, length);
    leadership_policy_string_dup(&out->ptr->message, wrong.message);
}

// The candidate's rack among those of the settings; their number if it is none of them.
static size_t place(const settings *settings, const conclave_policy_types_candidate_t *candidate) {
    for (size_t i = 0; i < candidate->labels.len; i++) {
        if (!starts(candidate->labels.ptr[i].f0, 0, "rack") || candidate->labels.ptr[i].f0.len != 4) continue;
        for (size_t rack = 0; rack < settings->count; rack++) {
            if (equal(settings->racks[rack], candidate->labels.ptr[i].f1)) return rack;
        }
    }
    return settings->count;
}

static void say(text *out, size_t place, size_t none) {
    if (place == none) {
        leadership_policy_string_dup(out, "in none of the racks");
        return;
    }
    char reason[] = "in rack number 00";
    size_t length = strlen("in rack number ");
    leadership_policy_string_dup_n(out, reason, length + digits(reason + length, place + 1));
}

bool exports_conclave_policy_leadership_rank(conclave_policy_types_view_t *view, text *config,
                                             exports_conclave_policy_leadership_ranking_t *out,
                                             conclave_policy_types_refusal_t *refusal) {
    settings settings;
    problem wrong = parse(*config, &settings);
    if (wrong.message != NULL) {
        refusal->tag = CONCLAVE_POLICY_TYPES_REFUSAL_CONFIGURATION;
        leadership_policy_string_dup(&refusal->val.configuration, wrong.message);
        return false;
    }
    size_t count = view->candidates.len;
    size_t *keys = malloc(count * sizeof *keys), *order = malloc(count * sizeof *order);
    for (size_t i = 0; i < count; i++) {
        const conclave_policy_types_candidate_t *candidate = &view->candidates.ptr[i];
        bool incumbent = view->incumbent.is_some && equal(view->incumbent.val.name, candidate->name);
        keys[i] = 2 * place(&settings, candidate) + !incumbent;
        // What is equal stays in the view's order, the longest-standing first.
        size_t at = i;
        for (; at > 0 && keys[order[at - 1]] > keys[i]; at--) order[at] = order[at - 1];
        order[at] = i;
    }
    out->excluded = (exports_conclave_policy_leadership_list_ranked_t){NULL, 0};
    out->order.ptr = malloc(count * sizeof *out->order.ptr);
    out->order.len = count;
    for (size_t i = 0; i < count; i++) {
        const conclave_policy_types_candidate_t *candidate = &view->candidates.ptr[order[i]];
        leadership_policy_string_dup_n(&out->order.ptr[i].node, (char *)candidate->name.ptr, candidate->name.len);
        say(&out->order.ptr[i].reason, keys[order[i]] / 2, settings.count);
    }
    return true;
}
