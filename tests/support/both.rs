//! A check of the store, run on either database.

/// Makes a test of each check for SQLite and for PostgreSQL, in a place of its own.
macro_rules! on_both {
    ($place:ident: $($check:ident),* $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $check() {
                Box::pin(super::$check(super::$place::sqlite())).await;
            })*
        }
        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $check() {
                Box::pin(super::$check(super::$place::postgres())).await;
            })*
        }
    };
}
