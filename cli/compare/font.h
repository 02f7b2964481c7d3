// The strokes of the letters in plots: Hershey's Roman simplex.
#pragma once

// One string per character from space on. A coordinate is a letter's distance from 'R', x before y, y downwards. The
// first pair is the left and right edge; then points of a stroke; the pair " R" lifts the pen. Capitals reach from -12
// to 9.
enum { CLI_FONT_FIRST = 32, CLI_FONT_GLYPHS = 95, CLI_FONT_TOP = -12, CLI_FONT_BASE = 9 };
extern const char *const cli_font[CLI_FONT_GLYPHS];
