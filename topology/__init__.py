"""What happens: the line, its stages and their algebra.  Pure: no Faust, no clock, no I/O."""
