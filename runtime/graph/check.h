// Rules of check.c that stand in check_back.c: a parameter struct each.
#pragma once
#include "runtime/graph/node.h"

typedef gyre_status gyre_check_rule(const gyre_graph *g, const struct gyre_node *node, gyre_error *err);
gyre_check_rule gyre_check_matmul_back, gyre_check_columns, gyre_check_norm_back, gyre_check_quantize_back,
    gyre_check_act_mul_back, gyre_check_kv_back, gyre_check_attn_back; // scale_back is matmul_back's
