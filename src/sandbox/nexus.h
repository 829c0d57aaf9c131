/* nexus.h - HPKV Nexus without its understanding: which records have the words of a query in them.
 *
 * The request is {"query","topK"? 1 to 20, default 5,"minScore"? 0 to 1, default 0.5}. A record's
 * score is the share of the query's words that its key or value contains, upper and lower case of
 * ASCII letters alike. */
#pragma once

#include "ops.h"

typedef void nexus_run(const struct store *s, struct span request, struct outcome *o);

nexus_run nexus_search; /* "results":[{"key","score"}], the best first */
nexus_run nexus_query;  /* "answer": the best record's value, "sources" as the results */
