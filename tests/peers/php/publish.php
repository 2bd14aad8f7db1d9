<?php
// Laravel's own broadcasting over Redis, unmodified, from Debian's packages: what its queue does with an event.

require 'Illuminate/Broadcasting/autoload.php';
require 'Illuminate/Redis/autoload.php';
require 'Illuminate/Config/autoload.php';

use Illuminate\Broadcasting\BroadcastEvent;
use Illuminate\Broadcasting\Broadcasters\RedisBroadcaster;
use Illuminate\Broadcasting\BroadcastManager;
use Illuminate\Broadcasting\Channel;
use Illuminate\Broadcasting\InteractsWithSockets;
use Illuminate\Broadcasting\PresenceChannel;
use Illuminate\Broadcasting\PrivateChannel;
use Illuminate\Config\Repository;
use Illuminate\Container\Container;
use Illuminate\Contracts\Broadcasting\ShouldBroadcast;
use Illuminate\Redis\RedisManager;

$given = json_decode($argv[1], true);

class OrderShipped implements ShouldBroadcast
{
    use InteractsWithSockets;

    public $order = 7;
    public $text = 'žluť 😀';

    public function broadcastOn()
    {
        return [new Channel('chat'), new PrivateChannel('orders.7'), new PresenceChannel('room')];
    }
}

$app = new Container;
$redis = new RedisManager($app, 'phpredis', [
    'options' => [], 'default' => ['host' => '127.0.0.1', 'port' => $given['port'], 'database' => 0],
]);
$app->instance('config', new Repository(['broadcasting' => [
    'default' => 'redis', 'connections' => ['redis' => ['driver' => 'redis', 'connection' => 'default']],
]]));
$app->instance('redis', $redis);
$manager = new BroadcastManager($app);

(new BroadcastEvent(new OrderShipped))->handle($manager);
$toOthers = new OrderShipped;
$toOthers->socket = $given['socket'];
(new BroadcastEvent($toOthers))->handle($manager);
$manager->connection()->broadcast([new Channel('chat')], 'last', []);
