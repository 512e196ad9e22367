//! Viewers go to the worker that has the fewest, though the kernel gives their
//! datagrams to another.

use std::sync::atomic::Ordering;

use super::*;
use crate::worker::{Refusal, SessionKind};

/// One more than the spare viewers of the placement and the least loaded worker's none.
const CROWD: usize = 9;

fn viewers(world: &World) -> Vec<usize> {
    world.gateway.shared.directory.viewers_by_worker()
}

/// Joins a viewer; returns it and how long it took to connect.
fn join(world: &mut World) -> (usize, Duration) {
    let asked = world.now;
    let viewer = world.watch(&Options::default());
    world.run_until_connected(viewer);
    (viewer, world.clients[viewer].connected_at.unwrap() - asked)
}

/// A publisher and [`CROWD`] viewers on worker 0, which receives everything; and how
/// long the last one took to connect.
fn crowded() -> (World, Duration) {
    let way = Way { delay: millis(20), ..Way::default() };
    let mut world = World::with_workers(2, 5, way, way);
    let publisher = world.publish(&Options::default());
    world.run_until_connected(publisher);
    world.run_for(millis(500));
    let took = (0..CROWD).map(|_| join(&mut world).1).last().unwrap();
    assert_eq!(viewers(&world), [CROWD, 0]);
    assert_eq!(world.gateway.totals().forwarded, 0);
    (world, took)
}

#[test]
fn a_viewer_of_a_crowded_worker_is_served_by_another_without_a_loss() {
    let (mut world, at_receiver) = crowded();
    let (viewer, handed_over) = join(&mut world);
    let late = handed_over.saturating_sub(at_receiver);
    assert!(late < millis(5), "no binding request has to be sent again: {late:?}");
    assert_eq!(viewers(&world), [CROWD, 1]);
    assert_eq!(world.gateway.cores[1].sizes(), [1, 1, 1, 1, 1]);
    // Longer than consent lasts: its checks and reports are passed on to the owner.
    world.run_for(gateway::CONSENT + seconds(2));
    assert_eq!(world.clients[viewer].video().holes().len(), 0);
    let newest = world.clients[viewer].video().packets.values().map(|got| got.at).max().unwrap();
    assert!(world.now - newest < millis(100), "{:?}", world.now - newest);
    assert!(world.gateway.totals().forwarded > 5);
    let rejected: u64 = world.gateway.totals().rejected.iter().map(|(_, count)| count).sum();
    assert_eq!(rejected, 0, "{:?}", world.gateway.totals());

    // And its end, and the others', give their places back.
    for client in &world.clients[1..] {
        world.gateway.pool.close(client.id.unwrap(), "closed_by_peer").unwrap();
    }
    world.run_for(millis(50));
    assert_eq!(viewers(&world), [0, 0]);
    assert_eq!(world.gateway.pool.count(SessionKind::Viewer), 0);
    assert_eq!(world.gateway.cores[1].sizes(), [0; 5]);
}

#[test]
fn a_place_that_was_kept_for_a_viewer_is_free_again_when_it_never_comes() {
    let (mut world, _) = crowded();
    let viewer = world.watch(&Options::default());
    let id = world.clients[viewer].id.unwrap();
    // Its first binding request is passed on, but the owner never sees it.
    let ufrag = world.gateway.pool.view(id).unwrap().ufrag;
    let directory = &world.gateway.shared.directory;
    assert!(matches!(directory.claim(&ufrag, 0), crate::worker::directory::Claim::Owned(1)));
    assert!(matches!(directory.claim(&ufrag, 0), crate::worker::directory::Claim::Owned(1)));
    assert_eq!(viewers(&world), [CROWD, 1]);
    assert_eq!(world.gateway.pool.viewers_of(&table()), CROWD, "it has not arrived");
    world.clients[viewer].dead = true;
    world.run_for(seconds(11));
    world.gateway.pool.sweep(world.now);
    assert_eq!(viewers(&world), [CROWD, 0]);
    assert_eq!(world.gateway.pool.count(SessionKind::Viewer), CROWD);
}

#[test]
fn a_publisher_stays_where_it_comes_in() {
    let (mut world, _) = crowded();
    let options = Options::default();
    let mut client = Client::publisher(world.now, world.next_address(), &options, 99);
    let offer = client.offer(world.now);
    let other = "baccarat".parse().unwrap();
    let created = world.gateway.publish(world.now, &other, &offer).unwrap();
    client.accept(world.now, created);
    world.clients.push(client);
    world.run_until_connected(world.clients.len() - 1);
    assert_eq!(world.gateway.cores[1].sizes(), [0; 5]);
    assert_eq!(world.gateway.totals().forwarded, 0);
}

/// Seconds in which the workers are busy for these shares, each with a tick.
fn busy_for(world: &mut World, seconds: u64, loads: [f64; 2]) {
    for _ in 0..seconds {
        world.run_for(Duration::from_secs(1));
        for (stats, load) in world.gateway.shared.stats.iter().zip(loads) {
            stats.busy_nanos.fetch_add((load * 1e9) as u64, Ordering::Relaxed);
        }
        world.gateway.pool.measure(world.now, 0);
    }
}

#[test]
fn a_busy_workers_viewers_go_to_another_and_two_busy_workers_refuse() {
    let way = Way { delay: millis(20), ..Way::default() };
    let mut world = World::with_workers(2, 6, way, way);
    let publisher = world.publish(&Options::default());
    world.run_until_connected(publisher);
    busy_for(&mut world, 5, [1.0, 0.1]);
    assert_eq!(world.gateway.pool.check_viewer(0), Ok(()));
    assert!(world.gateway.pool.full().is_none());
    join(&mut world);
    assert_eq!(viewers(&world), [0, 1], "worker 0 gets everything and is busy");

    busy_for(&mut world, 5, [1.0, 1.0]);
    assert_eq!(world.gateway.pool.check_viewer(0), Err(Refusal::WorkerBusy));
    let said = world.gateway.pool.full().unwrap();
    assert!(said.contains("the media workers are busy"), "{said}");
    assert_eq!(world.gateway.pool.count(SessionKind::Viewer), 1, "who is there stays");

    busy_for(&mut world, 15, [0.1, 0.1]);
    assert_eq!(world.gateway.pool.check_viewer(0), Ok(()));
    join(&mut world);
    assert_eq!(viewers(&world), [1, 1]);
}
