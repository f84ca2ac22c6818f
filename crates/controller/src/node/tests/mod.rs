mod live;
mod planning;
