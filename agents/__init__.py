"""Who does it: the only room that knows Faust."""
