//! Run any OCI image as a microVM embedded in your app.
