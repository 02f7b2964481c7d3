// The text that the closing summary reads unless another is given. Written for gyre; several kinds, so that no single
// one decides. It is for a first impression, not for calibration, and no figure on it belongs into a table.
#pragma once

static const char gyre_summary_text[] =
    "The ferry left the harbour a little after six, when the fog had begun to lift from the water. Two fishermen "
    "mended their nets "
    "on the quay and did not look up. \"You can see the lighthouse from here on a clear day,\" the captain said, \"but "
    "clear days are rare in March.\"\n\n"
    "A gear train multiplies torque by the ratio of its teeth: a wheel with 48 teeth driven by one with 12 turns four "
    "times slower and "
    "pushes four times harder, less what friction takes. In 1927 the workshop had 14 lathes, 3 planers and a single "
    "electric motor of 22 kW.\n\n"
    "int sum(const int *values, int n)\n{\n    int total = 0;\n    for (int i = 0; i < n; i++) {\n        total += "
    "values[i];\n    }\n    return total;\n}\n\n"
    "Question: Why does bread rise?\nAnswer: Yeast eats the sugar in the dough and gives off carbon dioxide, and the "
    "gluten holds the bubbles. "
    "Let it rest for an hour, fold it twice, and bake it at 230 degrees until the crust is dark.\n";
