"""Connect: what lies elsewhere, as events of ours: a repository's history, a table, another system's posts."""
