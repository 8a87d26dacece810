//! Versioned binary frames between a host and its guest agent.
