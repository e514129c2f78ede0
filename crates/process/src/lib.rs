//! One child process: start, capture, limits, the end of its whole tree, and why it ended.
//!
//! Nothing else in the workspace starts a process.
