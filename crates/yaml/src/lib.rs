//! YAML with positions: a tree that knows the line of every node.
