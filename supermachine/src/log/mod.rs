//! `SUPERMACHINE_LOG`: what this process and its workers do, on standard error.

mod filter;
#[cfg(feature = "log")]
mod lines;

#[cfg(test)]
pub(crate) use filter::parse;
pub(crate) use filter::{BadFilter, NAME};

/// Writes what `SUPERMACHINE_LOG` asks for from now on. For processes that are
/// ours, the tool and workers: programs that embed the library listen to its
/// `tracing` events as they like.
///
/// # Errors
/// It says what is no filter. Nothing is written then.
pub(crate) fn begin() -> Result<(), BadFilter> {
    let Some(filter) = filter::of_environment()? else {
        return Ok(());
    };
    #[cfg(feature = "log")]
    lines::begin(&filter);
    #[cfg(not(feature = "log"))]
    drop(filter);
    Ok(())
}

/// Whether whoever started this process wants to read such lines.
pub(crate) fn is_wanted() -> bool {
    std::env::var_os(NAME).is_some_and(|filter| !filter.is_empty())
}
