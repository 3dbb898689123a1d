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

// Reads `{"racks":["r1","r2"]}`, which is how the host passes it on: without spaces, and all other
// settings are refused. Returns what is wrong, or NULL.
static const char *parse(text config, settings *out) {
    static const char FIRST[] = "{\"racks\":[";
    out->count = 0;
    if (config.len == 2) return NULL; // {}
    if (!starts(config, 0, FIRST)) return "the only setting is `racks`, a list of names";
    size_t at = sizeof FIRST - 1;
    while (at < config.len && config.ptr[at] == '"') {
        size_t from = ++at;
        while (at < config.len && config.ptr[at] != '"') {
            if (config.ptr[at++] == '\\') return "the name of a rack has a character that this policy cannot read";
        }
        if (at == from) return "the name of a rack is missing";
        if (out->count == MOST_RACKS) return "there are more racks than this policy can tell apart";
        out->racks[out->count++] = (text){config.ptr + from, at - from};
        at++;
        if (at < config.len && config.ptr[at] == ',') at++;
    }
    return starts(config, at, "]}") && config.len - at == 2 ? NULL : "the only setting is `racks`, a list of names";
}

void exports_conclave_policy_about_introduce(exports_conclave_policy_about_info_t *out) {
    leadership_policy_string_dup(&out->name, "{{name}}");
    leadership_policy_string_dup(&out->version, "0.1.0");
    leadership_policy_string_dup(&out->summary, "Nodes in a preferred rack lead.");
    leadership_policy_string_dup(&out->config_schema, SCHEMA);
}

void exports_conclave_policy_about_validate(text *config, exports_conclave_policy_about_list_problem_t *out) {
    settings settings;
    const char *wrong = parse(*config, &settings);
    *out = (exports_conclave_policy_about_list_problem_t){NULL, 0};
    if (wrong == NULL) return;
    out->ptr = malloc(sizeof *out->ptr);
    out->len = 1;
    leadership_policy_string_dup(&out->ptr->path, "/racks");
    leadership_policy_string_dup(&out->ptr->message, wrong);
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
    size_t number = place + 1, digits = sizeof "in rack number " - 1;
    if (number >= 10) reason[digits++] = (char)('0' + number / 10);
    reason[digits++] = (char)('0' + number % 10);
    leadership_policy_string_dup_n(out, reason, digits);
}

bool exports_conclave_policy_leadership_rank(conclave_policy_types_view_t *view, text *config,
                                             exports_conclave_policy_leadership_ranking_t *out,
                                             conclave_policy_types_refusal_t *refusal) {
    settings settings;
    const char *wrong = parse(*config, &settings);
    if (wrong != NULL) {
        refusal->tag = CONCLAVE_POLICY_TYPES_REFUSAL_CONFIGURATION;
        leadership_policy_string_dup(&refusal->val.configuration, wrong);
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
