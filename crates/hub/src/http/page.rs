//! Lists in pages.

use attune_store::{Page, PageRequest};
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::ApiError;

/// Rows of a page unless asked otherwise; a fact of the platform.
const USUAL_SIZE: u32 = 50;

/// Most rows of a page; a fact of the platform.
const LARGEST_SIZE: u32 = 100;

/// `page` and `page_size` as they are asked for.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct PageQuery {
    page: Option<String>,
    page_size: Option<String>,
}

impl PageQuery {
    /// The page; sizes above the largest count as the largest.
    pub(super) fn read(&self) -> Result<PageRequest, ApiError> {
        let number = |name: &str, text: &Option<String>, usual: u32| match text {
            None => Ok(usual),
            Some(text) => text
                .parse()
                .ok()
                .filter(|number| *number > 0)
                .ok_or_else(|| format!("{name} must be a whole number above 0")),
        };
        let page = number("page", &self.page, 1);
        let page_size = number("page_size", &self.page_size, USUAL_SIZE);
        match (page, page_size) {
            (Ok(page), Ok(page_size)) => Ok(PageRequest { page, page_size: page_size.min(LARGEST_SIZE) }),
            (page, page_size) => {
                let problems: Vec<String> = [page.err(), page_size.err()].into_iter().flatten().collect();
                Err(ApiError::invalid(&problems))
            }
        }
    }
}

/// The answer: `items` and `pagination`.
pub(super) fn paged<T>(request: PageRequest, page: Page<T>, item: impl Fn(T) -> Value) -> Value {
    let total = page.total;
    let pages = total.div_ceil(u64::from(request.page_size));
    let items: Vec<Value> = page.items.into_iter().map(item).collect();
    json!({
        "items": items,
        "pagination": {
            "page": request.page,
            "page_size": request.page_size,
            "total_items": total,
            "total_pages": pages,
            "has_previous": request.page > 1,
            "has_next": u64::from(request.page) < pages,
        },
    })
}
