// Finds the sections that answer a query. MiniSearch ranks them (BM25+); the rest is about words: all names of one thing
// are one word, and a word that the book does not use brings those that it does. Before it come minisearch.js and
// search_data.js, with the sections (BOOK), synonyms, and Sphinx's stemmer and stop words.
class BookSearch {
  // A row of the symptom table has symptoms, and a section has those of all rows that lead to it.
  static FIELDS = { title: 2, names: 1.5, symptoms: 4, leads: 3, page: 0.5, text: 1 };
  static ROW = /#symptom-/;
  // Headings under which a book says again what it has explained, and pages that list.
  static MINOR = /^(references|further reading|what to remember|exercises)$/i;
  static LISTS = /^(index|CHANGELOG)\b|\/(glossary|summaries|claims|reference|notation|status|bibliography|intro)\b/;
  static IDLE = new Set([...stopwords, ..."a am an been can could did do does every get gets has have how i its just me much"
    .concat(" my our should so than up us using versus very vs we what when where which who why would you your")
    .concat(" issue problem help").split(" ")]);

  constructor(book) {
    this.stemmer = new Stemmer();
    this.stems = new Map();
    this.phrases = new Map();
    this.known = new Map(); // how often the book has a word
    this.named = new Map();
    for (const [meaning, ...others] of book.same) {
      const word = this.split(meaning).join("_");
      for (const phrase of [meaning, ...others]) this.learn(this.split(phrase), word);
    }
    this.see = Object.entries(book.see).map(([typed, means]) => [this.words(typed), this.words(means)]);
    this.sections = new Map(book.sections.map((section) => [section.id, section]));
    for (const { id, title, names, symptoms } of book.sections) {
      for (const name of names) this.name(name.split(";")[0], id, 0.5);
      for (const name of [title, ...names, ...symptoms]) this.name(name, id, 2);
    }
    this.index = new MiniSearch({
      fields: Object.keys(BookSearch.FIELDS),
      stringifyField: (value) => (Array.isArray(value) ? value.join(". ") : value),
      tokenize: (text) => this.wordsAndParts(text),
      processTerm: (term) => (this.known.set(term, (this.known.get(term) ?? 0) + 1), term),
    });
    const leading = (section) => ({ ...section, symptoms: [], leads: section.symptoms });
    this.index.addAll(book.sections.map((each) => (BookSearch.ROW.test(each.id) ? each : leading(each))));
  }

  // What a section is called in a heading, in the glossary and in the index; half as much if it is one of several places.
  name(name, id, weight) {
    const key = this.key(this.words(name));
    if (!this.named.has(key)) this.named.set(key, new Map());
    this.named.get(key).set(id, weight);
  }

  // A word's stem, in British spelling and small letters; nothing for a word that every text has.
  stem(typed) {
    if (!this.stems.has(typed)) {
      const word = typed.normalize("NFKC").toLowerCase();
      const stem = this.stemmer.stemWord(word.replace(/iz(?=[aei])/, "is"));
      this.stems.set(typed, BookSearch.IDLE.has(word) ? "" : stem);
    }
    return this.stems.get(typed);
  }

  // The stems of a text and where their words stand.
  plain(text) {
    const found = [];
    for (const { 0: word, index } of text.matchAll(/[\p{L}\p{N}_]+/gu)) {
      const term = this.stem(word);
      if (term) found.push({ term, start: index, end: index + word.length });
    }
    return found;
  }

  split(text) {
    return this.plain(text).map(({ term }) => term);
  }

  learn(words, meaning) {
    const known = this.phrases.get(words[0]) ?? [];
    this.phrases.set(words[0], [...known, { words, meaning }].sort((one, two) => two.words.length - one.words.length));
  }

  // The words of a text and where they stand, with one word for all names of a thing.
  tokens(text) {
    const plain = this.plain(text);
    const found = [];
    for (let at = 0; at < plain.length; ) {
      const fits = ({ words }) => words.every((word, i) => word === plain[at + i]?.term);
      const phrase = this.phrases.get(plain[at].term)?.find(fits);
      const parts = plain.slice(at, at + (phrase?.words.length ?? 1));
      found.push({ term: phrase?.meaning ?? plain[at].term, start: parts[0].start, end: parts.at(-1).end, parts });
      at += parts.length;
    }
    return found;
  }

  words(text) {
    return this.tokens(text).map(({ term }) => term);
  }

  // For the index those words, and what they are made of, as "running_mean" of "running" and "mean".
  wordsAndParts(text) {
    const found = [];
    for (const { term, parts } of this.tokens(text)) {
      found.push(term);
      if (parts.length > 1) found.push(...parts.map((part) => part.term));
      else if (term.includes("_")) found.push(...this.split(term.replaceAll("_", " ")));
    }
    return found;
  }

  // A word that the book does not have, such as "shap_values", is what it is made of: "shap" and "values".
  partsIfUnknown(word) {
    return this.known.has(word) || !word.includes("_") ? [word] : this.split(word.replaceAll("_", " "));
  }

  // How much words tell: a word that is everywhere tells little.
  telling(words) {
    return words.reduce((sum, word) => sum + Math.log(1 + 20000 / (this.known.get(word) ?? 200)), 0);
  }

  key(words) {
    return [...new Set(words)].sort().join(" ");
  }

  // For each word that was typed, those that stand for it.
  meanings(typed) {
    const meanings = new Map(typed.map((word) => [word, []]));
    for (const [words, means] of this.see)
      if (words.every((word) => typed.includes(word))) for (const word of words) meanings.get(word).push(...means);
    return meanings;
  }

  find(query) {
    const typed = [...new Set(this.words(query).flatMap((word) => this.partsIfUnknown(word)))];
    const meanings = this.meanings(typed);
    const added = [...new Set([...meanings.values()].flat())].filter((word) => !typed.includes(word));
    const found = this.index.search([...typed, ...added].join(" "), {
      tokenize: (text) => text.split(" "),
      processTerm: (term) => term,
      boost: BookSearch.FIELDS,
      boostTerm: (term) => (added.includes(term) ? 0.5 : 1),
      prefix: (term) => !this.known.has(term) && term.length > 2,
      fuzzy: (term) => (!this.known.has(term) && term.length > 4 ? 0.25 : 0),
    });
    for (const result of found) {
      const { id, title, symptoms } = this.sections.get(result.id);
      const hits = typed.filter((word) => [word, ...meanings.get(word)].some((each) => result.queryTerms.includes(each)));
      // Of a few words most should be found; a sentence has words that tell nothing.
      result.score *= Math.pow(this.telling(hits) / this.telling(typed), Math.min(1, 3 / typed.length));
      // MiniSearch has multiplied by the number of words found, also of those that nobody typed.
      result.score /= result.queryTerms.length;
      const called = (words) => this.named.get(words)?.get(id) ?? 0;
      const each = typed.reduce((sum, word) => sum + called(word), 0) / typed.length;
      result.score *= 1 + Math.max(called(this.key(typed)), each);
      if (BookSearch.MINOR.test(title)) result.score *= 0.3;
      else if (BookSearch.LISTS.test(id)) result.score *= 0.6;
      // The heading above many rows: one of them says more.
      else if (!BookSearch.ROW.test(id) && symptoms.includes(title)) result.score *= 0.6;
    }
    found.sort((one, two) => two.score - one.score);
    return found.map(({ id, score, terms }) => ({ ...this.sections.get(id), score, terms }));
  }
}
