/* SPDX-License-Identifier: Apache-2.0 */
/* Ordered intrusive tree (AVL) of numbered nodes. Each node carries a value; the tree knows the largest value of every
 * subtree, so "the last node below X whose value is at least V" takes O(log n). Used for vmas (value: the free gap below)
 * and for the memory file's free ranges (value: length). No locking of its own. */
#pragma once

#include <glib.h>

typedef struct _TesTreeNode TesTreeNode;
struct _TesTreeNode {
  TesTreeNode *left, *right, *parent;
  gulong key; /* unique; may be changed in place as long as the order stays */
  gulong val; /* change with tes_tree_set_val() */
  gulong max; /* largest val in the subtree */
  gint height;
};
typedef struct {
  TesTreeNode *root;
} TesTree;

void tes_tree_insert(TesTree *, TesTreeNode *);
void tes_tree_remove(TesTree *, TesTreeNode *);
void tes_tree_set_val(TesTree *, TesTreeNode *, gulong val);
/* Greatest key <= key, least key >= key, neighbours; NULL: none. */
TesTreeNode *tes_tree_le(const TesTree *, gulong key);
TesTreeNode *tes_tree_ge(const TesTree *, gulong key);
TesTreeNode *tes_tree_first(const TesTree *);
TesTreeNode *tes_tree_last(const TesTree *);
TesTreeNode *tes_tree_next(const TesTreeNode *);
TesTreeNode *tes_tree_prev(const TesTreeNode *);
/* Node of the greatest key < below with val >= val. */
TesTreeNode *tes_tree_last_fit(const TesTree *, gulong below, gulong val);
