"""Filters: rules that drop documents from the corpus.

To add a filter:

1. Write it in a module of its own here: a function, or a class with callable instances, that takes a
   `base.Candidate` and returns a `Drop`, or None to keep the document.
2. Add a field for its setting to `settings.FilterSettings`, with its help text: the command-line option, the entry in
   the manifest and the cache's identity follow from the field.
3. Yield it in `pipeline.build_filters`, at its place in the order.
"""
