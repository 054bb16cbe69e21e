// The order of search results: definitions and pages of the book come before the names of its package.
var Scorer = {
  score: ([page, , , , score]) => page === "book/api" ? score - 30 : score,
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: {0: 15, 1: 5, 2: -5},
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};

// A page that was opened from a folder may not read other files, so hits are shown without their surroundings.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
