/* SPDX-License-Identifier: Apache-2.0 */
/* AVL tree with parent links and a maximum per subtree; see tree.h. */
#include <core/mm/tree.h>

static gint height(const TesTreeNode *n) { return n ? n->height : 0; }
static gulong max_of(const TesTreeNode *n) { return n ? n->max : 0; }

static void refresh(TesTreeNode *n) {
  gint l = height(n->left), r = height(n->right);
  n->height = 1 + MAX(l, r);
  n->max = MAX(n->val, MAX(max_of(n->left), max_of(n->right)));
}

static void replace_child(TesTree *t, TesTreeNode *parent, TesTreeNode *old, TesTreeNode *child) {
  if (!parent)
    t->root = child;
  else if (parent->left == old)
    parent->left = child;
  else
    parent->right = child;
  if (child)
    child->parent = parent;
}

static TesTreeNode *rotate(TesTree *t, TesTreeNode *n, gboolean to_left) {
  TesTreeNode *up = to_left ? n->right : n->left;
  TesTreeNode *mid = to_left ? up->left : up->right;
  replace_child(t, n->parent, n, up);
  if (to_left) {
    up->left = n;
    n->right = mid;
  } else {
    up->right = n;
    n->left = mid;
  }
  n->parent = up;
  if (mid)
    mid->parent = n;
  refresh(n);
  refresh(up);
  return up;
}

/* Restores balance and maxima from n up to the root. */
static void fix_up(TesTree *t, TesTreeNode *n) {
  while (n) {
    refresh(n);
    gint skew = height(n->left) - height(n->right);
    if (skew > 1) {
      if (height(n->left->left) < height(n->left->right))
        rotate(t, n->left, TRUE);
      n = rotate(t, n, FALSE);
    } else if (skew < -1) {
      if (height(n->right->right) < height(n->right->left))
        rotate(t, n->right, FALSE);
      n = rotate(t, n, TRUE);
    }
    n = n->parent;
  }
}

void tes_tree_insert(TesTree *t, TesTreeNode *n) {
  TesTreeNode **at = &t->root, *parent = NULL;
  while (*at) {
    parent = *at;
    at = n->key < parent->key ? &parent->left : &parent->right;
  }
  n->left = n->right = NULL;
  n->parent = parent;
  *at = n;
  fix_up(t, n);
}

void tes_tree_remove(TesTree *t, TesTreeNode *n) {
  TesTreeNode *from;
  if (n->left && n->right) {
    TesTreeNode *s = n->right;
    while (s->left)
      s = s->left;
    from = s->parent == n ? s : s->parent;
    if (s->parent != n) {
      replace_child(t, s->parent, s, s->right);
      s->right = n->right;
      s->right->parent = s;
    }
    s->left = n->left;
    s->left->parent = s;
    replace_child(t, n->parent, n, s);
  } else {
    from = n->parent;
    replace_child(t, n->parent, n, n->left ? n->left : n->right);
  }
  fix_up(t, from);
}

void tes_tree_set_val(TesTree *t, TesTreeNode *n, gulong val) {
  (void)t;
  n->val = val;
  for (; n; n = n->parent) {
    gulong max = MAX(n->val, MAX(max_of(n->left), max_of(n->right)));
    if (max == n->max)
      break;
    n->max = max;
  }
}

TesTreeNode *tes_tree_le(const TesTree *t, gulong key) {
  TesTreeNode *best = NULL;
  for (TesTreeNode *n = t->root; n;) {
    if (n->key <= key) {
      best = n;
      n = n->right;
    } else {
      n = n->left;
    }
  }
  return best;
}

TesTreeNode *tes_tree_ge(const TesTree *t, gulong key) {
  TesTreeNode *best = NULL;
  for (TesTreeNode *n = t->root; n;) {
    if (n->key >= key) {
      best = n;
      n = n->left;
    } else {
      n = n->right;
    }
  }
  return best;
}

TesTreeNode *tes_tree_first(const TesTree *t) { return tes_tree_ge(t, 0); }
TesTreeNode *tes_tree_last(const TesTree *t) { return tes_tree_le(t, G_MAXULONG); }

TesTreeNode *tes_tree_next(const TesTreeNode *n) {
  if (n->right) {
    for (n = n->right; n->left;)
      n = n->left;
    return (TesTreeNode *)n;
  }
  while (n->parent && n->parent->right == n)
    n = n->parent;
  return n->parent;
}

TesTreeNode *tes_tree_prev(const TesTreeNode *n) {
  if (n->left) {
    for (n = n->left; n->right;)
      n = n->right;
    return (TesTreeNode *)n;
  }
  while (n->parent && n->parent->left == n)
    n = n->parent;
  return n->parent;
}

/* The last fit inside a subtree all of whose keys qualify. */
static TesTreeNode *last_in(TesTreeNode *n, gulong val) {
  while (n && n->max >= val) {
    if (max_of(n->right) >= val && n->right)
      n = n->right;
    else if (n->val >= val)
      return n;
    else
      n = n->left;
  }
  return NULL;
}

TesTreeNode *tes_tree_last_fit(const TesTree *t, gulong below, gulong val) {
  TesTreeNode *n = t->root, *turn[96];
  guint depth = 0;
  /* Down along the border; every right turn leaves a node and its left subtree that lie wholly below. */
  while (n) {
    if (n->key < below) {
      turn[depth++] = n;
      n = n->right;
    } else {
      n = n->left;
    }
  }
  while (depth > 0) {
    n = turn[--depth];
    if (n->val >= val)
      return n;
    TesTreeNode *hit = last_in(n->left, val);
    if (hit)
      return hit;
  }
  return NULL;
}
