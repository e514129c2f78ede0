//! One child process: start, capture, limits, end of the whole tree, why it ended.
