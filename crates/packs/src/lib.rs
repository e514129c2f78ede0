//! Pack folders into the model, with errors that name file and line.
